//! Rotary parameters of a `config.json`, resolved as transformers 5.24 resolves them.

use serde_json::{Map, Value};
use shared::model::Rope;

use super::{Keys, Reason, shown};

/// Base of the frequencies where a file names none.
const DEFAULT_THETA: f64 = 150_000.0;

/// The rotary parameters: `rope_scaling` where it holds anything (an old file's, or one that both
/// versions of transformers shall read), else `rope_parameters`, else OpenAI's own flat names,
/// else the YaRN that transformers takes for gpt-oss.
pub(super) fn rope(keys: &Keys<'_>) -> Result<Rope, Reason> {
    let filled = |map: &&Map<String, Value>| !map.is_empty();
    let nested = match keys.object("rope_scaling")?.filter(filled) {
        Some(old) => Some(old),
        None => keys.object("rope_parameters")?,
    };
    match nested {
        Some(nested) => nested_rope(keys, &Keys(nested)),
        None if keys.text("model_type")?.is_none()
            && keys.find(&["rope_scaling_factor"]).is_some() =>
        {
            flat_rope(keys)
        }
        None => {
            whole_heads(keys)?;
            Ok(Rope {
                theta: keys.find_number(&["rope_theta"])?.unwrap_or(DEFAULT_THETA) as f32,
                factor: 32.0,
                beta_fast: 32.0,
                beta_slow: 1.0,
                original_context: keys.find_size(&[ORIGINAL_CONTEXT])?.unwrap_or(4096),
                truncate: false,
                attention_factor: None,
            })
        }
    }
}

const ORIGINAL_CONTEXT: &str = "original_max_position_embeddings";

/// Parameters in an object of their own.
fn nested_rope(keys: &Keys<'_>, nested: &Keys<'_>) -> Result<Rope, Reason> {
    for kind in ["full_attention", "sliding_attention"] {
        if nested.find(&[kind]).is_some() {
            return Err(format!(
                "the rope parameters name {kind}, expected the same ones for all layers"
            ));
        }
    }
    whole_heads(keys)?;
    whole_heads(nested)?;
    let theta = match nested.find_number(&["rope_theta"])? {
        Some(theta) => theta,
        None => keys.find_number(&["rope_theta"])?.unwrap_or(DEFAULT_THETA),
    } as f32;
    let positions = || keys.size(&["max_position_embeddings"]);
    match nested.text("rope_type")?.or(nested.text("type")?).unwrap_or("default") {
        "yarn" => {}
        "default" => {
            return Ok(Rope {
                theta,
                factor: 1.0,
                beta_fast: 32.0,
                beta_slow: 1.0,
                original_context: positions()?,
                truncate: false,
                attention_factor: None,
            });
        }
        other => return Err(format!("rope_type is {other}, expected yarn or default")),
    }
    // Transformers sets the outer value over the inner one.
    let original_context = match keys.find_size(&[ORIGINAL_CONTEXT])? {
        Some(context) => context,
        None => match nested.find_size(&[ORIGINAL_CONTEXT])? {
            Some(context) => context,
            None => positions()?,
        },
    };
    let factor = match nested.0.get("factor") {
        Some(Value::Null) => positions()? as f64 / original_context as f64,
        _ => nested.number(&["factor"])?,
    };
    if factor < 1.0 {
        return Err(format!("the rope parameter factor is {factor}, expected 1 or more"));
    }
    Ok(Rope {
        theta,
        factor: factor as f32,
        beta_fast: number_or(nested, "beta_fast", 32.0)?,
        beta_slow: number_or(nested, "beta_slow", 1.0)?,
        original_context,
        truncate: truncate(nested)?,
        attention_factor: attention_factor(nested, factor)?,
    })
}

/// A number; absent, null and zero are the default, as in transformers.
fn number_or(nested: &Keys<'_>, name: &str, default: f32) -> Result<f32, Reason> {
    let found = nested.find_number(&[name])?.filter(|&value| value != 0.0);
    Ok(found.map_or(default, |value| value as f32))
}

/// Whether the bounds of the ramp are rounded; transformers rounds them unless told not to.
fn truncate(nested: &Keys<'_>) -> Result<bool, Reason> {
    match nested.0.get("truncate") {
        None => Ok(true),
        Some(&Value::Bool(truncate)) => Ok(truncate),
        Some(Value::Null) => Ok(false),
        value => {
            Err(format!("the rope parameter truncate is {}, expected true or false", shown(value)))
        }
    }
}

/// The factor on queries and keys where it is not the one that follows from `factor`.
fn attention_factor(nested: &Keys<'_>, factor: f64) -> Result<Option<f64>, Reason> {
    let scaled = |mscale: f64| if factor > 1.0 { 0.1 * mscale * factor.ln() + 1.0 } else { 1.0 };
    let some = |value: &f64| *value != 0.0;
    let mscale = nested.find_number(&["mscale"])?.filter(some);
    let all_dim = nested.find_number(&["mscale_all_dim"])?.filter(some);
    let found = match (nested.find_number(&["attention_factor"])?, mscale, all_dim) {
        (Some(attention), _, _) => attention,
        (None, Some(mscale), Some(all_dim)) => scaled(mscale) / scaled(all_dim),
        _ => return Ok(None),
    };
    // A file may spell out what it need not, and another libm may round it otherwise.
    Ok(((found - scaled(1.0)).abs() > 1e-12).then_some(found))
}

/// OpenAI's own names, beside the other keys.
fn flat_rope(keys: &Keys<'_>) -> Result<Rope, Reason> {
    Ok(Rope {
        theta: keys.number(&["rope_theta"])? as f32,
        factor: keys.number(&["rope_scaling_factor"])? as f32,
        beta_fast: keys.find_number(&["rope_ntk_beta"])?.unwrap_or(32.0) as f32,
        beta_slow: keys.find_number(&["rope_ntk_alpha"])?.unwrap_or(1.0) as f32,
        original_context: keys.size(&["initial_context_length"])?,
        truncate: false,
        attention_factor: None,
    })
}

/// Refuses a rotation of a part of each head.
fn whole_heads(keys: &Keys<'_>) -> Result<(), Reason> {
    match keys.find_number(&["partial_rotary_factor"])? {
        Some(part) if part != 1.0 => {
            Err(format!("partial_rotary_factor is {part}, expected 1: whole heads are rotated"))
        }
        _ => Ok(()),
    }
}
