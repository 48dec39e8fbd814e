//! `config.json`: Hugging Face's, old and new, and the one of OpenAI's `original/` files.
//!
//! A key that changes what transformers 5.24 computes for gpt-oss is obeyed or refused by name.
//! All others are ignored, as transformers ignores them: what training, saving and generating
//! need (`attention_dropout`, `initializer_range`, `use_cache`, token ids, dtypes, labels), and
//! whatever nobody has heard of.

use std::path::Path;

use serde_json::{Map, Value, json};
use shared::model::ModelConfig;

use super::error::ModelError;
use super::pad::Widths;

mod rope;

/// A wrong value in the file: the message, without the file's name.
type Reason = String;

/// What a `config.json` says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Described {
    /// Hyper-parameters, checked; widths are padded to multiples of 32.
    pub config: ModelConfig,
    /// The widths of the tensors.
    pub widths: Widths,
    /// The projections of attention have biases.
    pub attention_bias: bool,
    /// The unembedding is the embedding where only one of them is there.
    pub tied: bool,
}

impl Described {
    /// The usual model of `config`.
    pub fn of(mut config: ModelConfig) -> Described {
        let widths = Widths::pad(&mut config);
        Described { config, widths, attention_bias: true, tied: false }
    }
}

/// Reads and checks `config.json`.
pub(crate) fn read(path: &Path) -> Result<Described, ModelError> {
    let text = std::fs::read_to_string(path).map_err(ModelError::io(path))?;
    describe(&text).map_err(|reason| ModelError::file(path, reason))
}

/// Reads and checks the text of a `config.json`; the error is one line.
pub fn parse(text: &str) -> Result<ModelConfig, Reason> {
    describe(text).map(|described| described.config)
}

fn describe(text: &str) -> Result<Described, Reason> {
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

    refuse_other_numbers(&keys)?;

    let rope = rope::rope(&keys)?;
    let num_hidden_layers = keys.size(&["num_hidden_layers"])?;
    let head_dim = keys.size(&["head_dim"])?;
    let max_position_embeddings = match keys.find_size(&["max_position_embeddings"])? {
        Some(positions) => positions,
        // OpenAI's own files leave it out: the context that YaRN stretches to.
        None => (rope.original_context as f64 * f64::from(rope.factor).max(1.0)) as usize,
    };
    let windowed_layers = windowed_layers(&keys, num_hidden_layers)?;
    let mut config = ModelConfig {
        vocab_size: keys.size(&["vocab_size"])?,
        hidden_size: keys.size(&["hidden_size"])?,
        num_hidden_layers,
        num_attention_heads: keys.size(&["num_attention_heads"])?,
        num_key_value_heads: keys.size(&["num_key_value_heads"])?,
        head_dim,
        intermediate_size: keys.size(&["intermediate_size"])?,
        num_local_experts: keys.size(&["num_local_experts", "num_experts"])?,
        num_experts_per_tok: keys.size(&["num_experts_per_tok", "experts_per_token"])?,
        sliding_window: match keys.find_size(&["sliding_window"])? {
            None if windowed_layers == 0 => max_position_embeddings,
            None => return Err("sliding_window is missing, and layers need it".to_owned()),
            Some(window) => window,
        },
        windowed_layers,
        max_position_embeddings,
        rope,
        rms_norm_eps: keys.find_number(&["rms_norm_eps"])?.unwrap_or(1e-5) as f32,
        swiglu_limit: keys.find_number(&["swiglu_limit"])?.unwrap_or(7.0) as f32,
    };
    let widths = Widths::pad(&mut config);
    config.check().map_err(|e| e.to_string())?;
    let attention_bias = keys.flag("attention_bias")?.unwrap_or(true);
    let tied = keys.flag("tie_word_embeddings")?.unwrap_or(false);
    Ok(Described { config, widths, attention_bias, tied })
}

/// Refuses values that change the numbers in a way that no engine computes.
fn refuse_other_numbers(keys: &Keys<'_>) -> Result<(), Reason> {
    const SWIGLU_ALPHA: f64 = 1.702;
    if let Some(alpha) = keys.find_number(&["swiglu_alpha"])?
        && alpha != SWIGLU_ALPHA
    {
        return Err(format!("swiglu_alpha is {alpha}, expected {SWIGLU_ALPHA}"));
    }
    if let Some((name, value)) = keys.find(&["per_layer_config"]) {
        return Err(format!("{name} is {}, expected the same for all layers", shown(Some(value))));
    }
    // One number under two names: transformers takes the second.
    if let (Some(local), Some(experts)) =
        (keys.find_size(&["num_local_experts"])?, keys.find_size(&["num_experts"])?)
        && local != experts
    {
        return Err(format!(
            "num_local_experts is {local} and num_experts is {experts}, expected the same number"
        ));
    }
    Ok(())
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

    fn flag(&self, name: &str) -> Result<Option<bool>, Reason> {
        match self.find(&[name]) {
            None => Ok(None),
            Some((_, &Value::Bool(flag))) => Ok(Some(flag)),
            Some((_, value)) => {
                Err(format!("{name} is {}, expected true or false", shown(Some(value))))
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
            "truncate": config.rope.truncate,
            "original_max_position_embeddings": config.rope.original_context,
        },
    });
    if let Some(factor) = config.rope.attention_factor {
        root["rope_scaling"]["attention_factor"] = json!(factor);
    }
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
