//! What tells one getp job from another, so that `--resume` completes only its own.

use std::path::Path;

use anyhow::{Context, Result};
use gptoss::cpu::KvDtype;
use gptoss::engine::Sampling;
use gptoss::modes::journal::{self, JobKey};
use gptoss::modes::prompts;

use super::Args;

impl Args {
    /// The job of these arguments; `model` names the checkpoint, `device` the device's kind.
    pub fn job_key(
        &self,
        prompts: &[&str],
        positions: usize,
        sampling: Sampling,
        model: &str,
        device: &str,
    ) -> Result<JobKey> {
        let stamp = |of: fn(&Path) -> std::io::Result<String>, path: &Path| {
            of(path).with_context(|| path.display().to_string())
        };
        let model_files = match &self.checkpoint {
            Some(path) => stamp(journal::model_stamp, path)?,
            None => String::from("-"),
        };
        let tokenizer = match &self.tokenizer {
            Some(path) => format!("{}, {}", path.display(), stamp(journal::file_stamp, path)?),
            None => String::from("o200k_harmony"),
        };
        Ok(JobKey {
            requests: prompts.len(),
            prompts: prompts::fingerprint(prompts),
            positions,
            sampling,
            stop: self.stop.clone(),
            model: model.to_owned(),
            model_files,
            bin_layout: self.model.options(self.checkpoint.as_deref())?.bin_layout,
            tokenizer,
            device: device.to_owned(),
            dense: self.device.dense(),
            kv: if self.device.kv32() { KvDtype::F32 } else { KvDtype::Bf16 },
            version: env!("CARGO_PKG_VERSION"),
            kernels: shared::kernels::FINGERPRINT,
        })
    }
}
