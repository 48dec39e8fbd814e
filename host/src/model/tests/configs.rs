//! `config.json`, sound and broken.

use serde_json::json;

use super::*;
use crate::synth::Preset;

fn parse(config: &Value) -> Result<ModelConfig, String> {
    config::parse(&config.to_string())
}

#[test]
fn old_new_and_original_forms_agree() {
    let both = Draft::of("tiny_bf16").config;
    let expected = parse(&both).unwrap();
    let mut old = both.clone();
    old.as_object_mut().unwrap().remove("rope_parameters");
    old["rope_scaling"].as_object_mut().unwrap().remove("rope_theta");
    let mut new = both;
    new.as_object_mut().unwrap().retain(|key, _| key != "rope_scaling" && key != "rope_theta");
    for config in [old, new] {
        assert_eq!(parse(&config), Ok(expected.clone()));
    }
}

#[test]
fn written_configs_read_back() {
    for preset in [Preset::Nano, Preset::B20, Preset::B120] {
        for mxfp4 in [false, true] {
            let config = preset.config();
            assert_eq!(parse(&config::to_json(&config, mxfp4)), Ok(config));
        }
    }
}

#[test]
fn layer_types_decide_which_layers_are_windowed() {
    let mut config = Draft::of("tiny_bf16").config;
    config["layer_types"] = json!(["full_attention", "sliding_attention"]);
    assert_eq!(parse(&config).unwrap().windowed_layers, 0b10);
    config["layer_types"] = Value::Null;
    assert_eq!(parse(&config).unwrap().windowed_layers, 0b01);
    assert_eq!(config::alternating(128), u128::MAX / 3);
    assert_eq!(config::alternating(5), 0b10101);
}

#[test]
fn rope_without_scaling() {
    let mut config = Draft::of("tiny_bf16").config;
    config["rope_parameters"] = json!({ "rope_type": "default", "rope_theta": 10000.0 });
    let rope = parse(&config).unwrap().rope;
    assert_eq!((rope.theta, rope.factor), (10000.0, 1.0));
}

#[test]
fn wrong_values_are_named() {
    let cases = [
        ("/vocab_size", json!(-5), "vocab_size is -5, expected a positive integer"),
        ("/vocab_size", json!(0), "vocab_size is 0"),
        ("/vocab_size", json!("many"), "vocab_size is \"many\""),
        ("/vocab_size", json!(1 << 30), "vocab_size is 1073741824"),
        ("/hidden_size", json!(2.5), "hidden_size is 2.5, expected a positive integer"),
        ("/hidden_size", json!(100), "hidden_size is 100, expected a multiple of 32"),
        ("/hidden_size", Value::Null, "hidden_size is missing"),
        ("/intermediate_size", json!(48), "intermediate_size is 48, expected a multiple of 32"),
        ("/num_hidden_layers", json!(3), "layer_types has 2 entries"),
        ("/num_hidden_layers", json!(u64::MAX), "layer_types has 2 entries"),
        ("/num_attention_heads", json!(9), "expected a multiple of num_key_value_heads"),
        ("/num_key_value_heads", json!(0), "num_key_value_heads is 0"),
        ("/num_experts_per_tok", json!(9), "num_experts_per_tok is 9, expected 1 to num_local"),
        ("/head_dim", json!(63), "head_dim is 63, expected an even number"),
        ("/sliding_window", json!([128]), "sliding_window is [128]"),
        ("/rms_norm_eps", json!(0), "rms_norm_eps is 0"),
        ("/swiglu_limit", json!(-7), "swiglu_limit is -7"),
        ("/swiglu_limit", json!("x"), "swiglu_limit is \"x\", expected a number"),
        ("/rope_parameters/factor", json!(1e300), "rope factor is inf"),
        ("/rope_parameters/rope_theta", json!(0.5), "rope_theta is 0.5"),
        ("/rope_parameters/rope_type", json!("llama3"), "rope_type is llama3"),
        ("/rope_parameters/rope_type", Value::Null, "rope_type is absent"),
        ("/rope_parameters/truncate", json!(true), "truncate is true, expected false"),
        ("/rope_parameters/attention_factor", json!(2), "attention_factor is 2"),
        ("/rope_parameters", json!(3), "rope_parameters is 3, expected an object"),
        ("/layer_types", json!(7), "layer_types is 7, expected an array"),
        ("/layer_types", json!(["full_attention", "odd"]), "layer_types[1] is \"odd\""),
        ("/model_type", json!("llama"), "model_type is \"llama\", expected gpt_oss"),
        ("/hidden_act", json!("gelu"), "hidden_act is \"gelu\", expected silu"),
        ("/quantization_config", json!({"quant_method": "gptq"}), "quant_method is \"gptq\""),
    ];
    for (pointer, value, expected) in cases {
        let mut config = Draft::of("tiny_bf16").config;
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] = value;
        let line = parse(&config).unwrap_err();
        assert!(line.contains(expected), "{pointer}: {line}");
    }
}

#[test]
fn text_that_is_no_config_is_refused() {
    for (text, expected) in
        [("", "not JSON"), ("{", "not JSON"), ("[1]", "not a JSON object"), ("NaN", "not JSON")]
    {
        let line = config::parse(text).unwrap_err();
        assert!(line.contains(expected), "{line}");
    }
    assert!(config::parse("{}").unwrap_err().contains("rope_theta is missing"));
}

#[test]
fn a_config_of_other_bytes_than_utf8_is_refused() {
    let dir = Draft::of("tiny_bf16").write();
    fs::write(dir.path().join("config.json"), [b'{', 0xff, b'}']).unwrap();
    let line = refusal(dir.path());
    assert!(line.contains("config.json"), "{line}");
}
