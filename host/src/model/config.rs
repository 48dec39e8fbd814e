//! `config.json`: Hugging Face's, old and new, and the one of OpenAI's `original/` files.

use std::path::Path;

use serde_json::{Map, Value, json};
use shared::model::{ModelConfig, Rope};

use super::error::ModelError;

/// A wrong value in the file: the message, without the file's name.
type Reason = String;

/// Reads and checks `config.json`.
pub(crate) fn read(path: &Path) -> Result<ModelConfig, ModelError> {
    let text = std::fs::read_to_string(path).map_err(ModelError::io(path))?;
    parse(&text).map_err(|reason| ModelError::file(path, reason))
}

/// Reads and checks the text of a `config.json`; the error is one line.
pub fn parse(text: &str) -> Result<ModelConfig, Reason> {
    let root: Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
    let Value::Object(root) = root else {
        return Err("not a JSON object".to_owned());
    };
    let keys = Keys(&root);
    keys.must_equal("model_type", &["gpt_oss"])?;
    keys.must_equal("hidden_act", &["silu"])?;
    if let Some(quantization) = keys.object("quantization_config")? {
        Keys(quantization).must_equal("quant_method", &["mxfp4"])?;
    }

    let rope = rope(&keys)?;
    let num_hidden_layers = keys.size(&["num_hidden_layers"])?;
    let head_dim = keys.size(&["head_dim"])?;
    let max_position_embeddings = match keys.find_size(&["max_position_embeddings"])? {
        Some(positions) => positions,
        // OpenAI's own files leave it out: the context that YaRN stretches to.
        None => (rope.original_context as f64 * f64::from(rope.factor).max(1.0)) as usize,
    };
    let config = ModelConfig {
        vocab_size: keys.size(&["vocab_size"])?,
        hidden_size: keys.size(&["hidden_size"])?,
        num_hidden_layers,
        num_attention_heads: keys.size(&["num_attention_heads"])?,
        num_key_value_heads: keys.size(&["num_key_value_heads"])?,
        head_dim,
        intermediate_size: keys.size(&["intermediate_size"])?,
        num_local_experts: keys.size(&["num_local_experts", "num_experts"])?,
        num_experts_per_tok: keys.size(&["num_experts_per_tok", "experts_per_token"])?,
        sliding_window: keys.size(&["sliding_window"])?,
        windowed_layers: windowed_layers(&keys, num_hidden_layers)?,
        max_position_embeddings,
        rope,
        rms_norm_eps: keys.find_number(&["rms_norm_eps"])?.unwrap_or(1e-5) as f32,
        swiglu_limit: keys.find_number(&["swiglu_limit"])?.unwrap_or(7.0) as f32,
    };
    config.check().map_err(|e| e.to_string())?;
    Ok(config)
}

/// Where the context length before extension is found.
const CONTEXT_KEYS: [&str; 2] = ["original_max_position_embeddings", "initial_context_length"];

/// Rotary parameters: nested under `rope_parameters` (transformers 5) or `rope_scaling`, or flat
/// with OpenAI's names.
fn rope(keys: &Keys<'_>) -> Result<Rope, Reason> {
    let nested = match keys.object("rope_parameters")? {
        Some(new) => Some(new),
        None => keys.object("rope_scaling")?,
    };
    let theta = nested.map(|n| Keys(n).find_number(&["rope_theta"])).transpose()?.flatten();
    let theta = match theta {
        Some(theta) => theta,
        None => keys.number(&["rope_theta"])?,
    } as f32;
    let Some(nested) = nested else {
        return flat_rope(keys, theta);
    };

    let nested = Keys(nested);
    let kind = nested.text("rope_type")?.or(nested.text("type")?);
    match kind {
        Some("yarn") => {}
        Some("default") => {
            let original_context = keys.size(&["max_position_embeddings"])?;
            return Ok(Rope {
                theta,
                factor: 1.0,
                beta_fast: 32.0,
                beta_slow: 1.0,
                original_context,
            });
        }
        other => {
            let got = other.unwrap_or("absent");
            return Err(format!("rope_type is {got}, expected yarn or default"));
        }
    }
    let factor = nested.number(&["factor"])? as f32;
    // Transformers rounds the correction range to whole frequencies unless told not to.
    if nested.0.get("truncate") != Some(&Value::Bool(false)) {
        let got = shown(nested.0.get("truncate"));
        return Err(format!("the rope parameter truncate is {got}, expected false"));
    }
    let expected = 0.1 * f64::from(factor).max(1.0).ln() + 1.0;
    if let Some(attention) = nested.find_number(&["attention_factor"])?
        && (attention - expected).abs() > 1e-6
    {
        return Err(format!(
            "the rope parameter attention_factor is {attention}, expected {expected}"
        ));
    }
    Ok(Rope {
        theta,
        factor,
        beta_fast: nested.find_number(&["beta_fast"])?.unwrap_or(32.0) as f32,
        beta_slow: nested.find_number(&["beta_slow"])?.unwrap_or(1.0) as f32,
        original_context: match nested.find_size(&CONTEXT_KEYS)? {
            Some(context) => context,
            None => keys.size(&["initial_context_length", "max_position_embeddings"])?,
        },
    })
}

fn flat_rope(keys: &Keys<'_>, theta: f32) -> Result<Rope, Reason> {
    Ok(Rope {
        theta,
        factor: keys.number(&["rope_scaling_factor"])? as f32,
        beta_fast: keys.find_number(&["rope_ntk_beta"])?.unwrap_or(32.0) as f32,
        beta_slow: keys.find_number(&["rope_ntk_alpha"])?.unwrap_or(1.0) as f32,
        original_context: keys.size(&["initial_context_length"])?,
    })
}

/// Bit `l` says whether layer `l` is windowed: by `layer_types`, else every even layer.
fn windowed_layers(keys: &Keys<'_>, layers: usize) -> Result<u128, Reason> {
    let Some(types) = keys.0.get("layer_types").filter(|v| !v.is_null()) else {
        return Ok(alternating(layers));
    };
    let Value::Array(types) = types else {
        return Err(format!("layer_types is {}, expected an array", shown(Some(types))));
    };
    if types.len() != layers || layers > 128 {
        return Err(format!(
            "layer_types has {} entries, expected num_hidden_layers = {layers} (at most 128)",
            types.len()
        ));
    }
    let mut windowed = 0;
    for (layer, kind) in types.iter().enumerate() {
        match kind.as_str() {
            Some("sliding_attention") => windowed |= 1 << layer,
            Some("full_attention") => {}
            _ => {
                let got = shown(Some(kind));
                return Err(format!(
                    "layer_types[{layer}] is {got}, expected sliding_attention or full_attention"
                ));
            }
        }
    }
    Ok(windowed)
}

/// The published pattern: windowed layers are the even ones.
pub(crate) const fn alternating(layers: usize) -> u128 {
    const EVEN: u128 = u128::MAX / 3;
    if layers >= 128 { EVEN } else { EVEN & ((1 << layers) - 1) }
}

/// A value as a message shows it: short, and on one line.
fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else {
        return "absent".to_owned();
    };
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Typed access to a JSON object; a null counts as absent.
struct Keys<'a>(&'a Map<String, Value>);

impl<'a> Keys<'a> {
    /// The first of `names` that is there.
    fn find<'n>(&self, names: &[&'n str]) -> Option<(&'n str, &'a Value)> {
        names.iter().find_map(|&name| {
            let value = self.0.get(name)?;
            (!value.is_null()).then_some((name, value))
        })
    }

    fn find_size(&self, names: &[&str]) -> Result<Option<usize>, Reason> {
        let Some((name, value)) = self.find(names) else {
            return Ok(None);
        };
        let size = value.as_u64().and_then(|v| usize::try_from(v).ok());
        match size {
            Some(size) => Ok(Some(size)),
            None => Err(format!("{name} is {}, expected a positive integer", shown(Some(value)))),
        }
    }

    fn size(&self, names: &[&str]) -> Result<usize, Reason> {
        self.find_size(names)?.ok_or_else(|| format!("{} is missing", names.join(" or ")))
    }

    fn find_number(&self, names: &[&str]) -> Result<Option<f64>, Reason> {
        let Some((name, value)) = self.find(names) else {
            return Ok(None);
        };
        match value.as_f64() {
            Some(number) => Ok(Some(number)),
            None => Err(format!("{name} is {}, expected a number", shown(Some(value)))),
        }
    }

    fn number(&self, names: &[&str]) -> Result<f64, Reason> {
        self.find_number(names)?.ok_or_else(|| format!("{} is missing", names.join(" or ")))
    }

    fn object(&self, name: &str) -> Result<Option<&'a Map<String, Value>>, Reason> {
        match self.find(&[name]) {
            None => Ok(None),
            Some((_, Value::Object(map))) => Ok(Some(map)),
            Some((_, value)) => {
                Err(format!("{name} is {}, expected an object", shown(Some(value))))
            }
        }
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, Reason> {
        match self.find(&[name]) {
            None => Ok(None),
            Some((_, Value::String(text))) => Ok(Some(text)),
            Some((_, value)) => Err(format!("{name} is {}, expected a string", shown(Some(value)))),
        }
    }

    /// Where `name` is given, it must be one of `allowed`.
    fn must_equal(&self, name: &str, allowed: &[&str]) -> Result<(), Reason> {
        match self.text(name)? {
            Some(text) if !allowed.contains(&text) => Err(format!(
                "{name} is {}, expected {}",
                shown(Some(&Value::from(text))),
                allowed.join(" or ")
            )),
            _ => Ok(()),
        }
    }
}

/// The `config.json` of a Hugging Face snapshot of `config`; `mxfp4` says how experts are stored.
pub(crate) fn to_json(config: &ModelConfig, mxfp4: bool) -> Value {
    let layer_types: Vec<&str> = (0..config.num_hidden_layers)
        .map(|l| if config.window(l).is_some() { "sliding_attention" } else { "full_attention" })
        .collect();
    let mut root = json!({
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "attention_bias": true,
        "hidden_act": "silu",
        "tie_word_embeddings": false,
        "torch_dtype": "bfloat16",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "num_local_experts": config.num_local_experts,
        "num_experts_per_tok": config.num_experts_per_tok,
        "experts_per_token": config.num_experts_per_tok,
        "sliding_window": config.sliding_window,
        "layer_types": layer_types,
        "max_position_embeddings": config.max_position_embeddings,
        "initial_context_length": config.rope.original_context,
        "rms_norm_eps": decimal(config.rms_norm_eps),
        "swiglu_limit": decimal(config.swiglu_limit),
        "rope_theta": decimal(config.rope.theta),
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": decimal(config.rope.factor),
            "beta_fast": decimal(config.rope.beta_fast),
            "beta_slow": decimal(config.rope.beta_slow),
            "truncate": false,
            "original_max_position_embeddings": config.rope.original_context,
        },
    });
    if mxfp4 {
        root["quantization_config"] = json!({
            "quant_method": "mxfp4",
            "modules_to_not_convert": [
                "model.layers.*.self_attn",
                "model.layers.*.mlp.router",
                "model.embed_tokens",
                "lm_head",
            ],
        });
    }
    root
}

/// The f64 with the shortest decimal form of `x`: 1e-5 rather than 9.999999747e-6.
fn decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}
