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
    config["rope_scaling"] = Value::Null;
    // Without a type it is the default one.
    for kind in [json!("default"), Value::Null] {
        config["rope_parameters"] = json!({ "rope_type": kind, "rope_theta": 10000.0 });
        let rope = parse(&config).unwrap().rope;
        assert_eq!((rope.theta, rope.factor, rope.attention_factor), (10000.0, 1.0, None));
    }
}

/// The published parameters, with `change` made to them.
fn rope_with(change: impl FnOnce(&mut Value)) -> Rope {
    let mut config = Draft::of("tiny_bf16").config;
    change(&mut config);
    parse(&config).unwrap().rope
}

#[test]
fn absent_rope_scaling_is_the_yarn_of_transformers() {
    // GptOssConfig(rope_scaling=None).rope_parameters, and what it makes of the outer keys.
    let published = Preset::B20.config().rope;
    for empty in [Value::Null, json!({})] {
        let rope = rope_with(|c| {
            c["rope_scaling"] = empty.clone();
            c["rope_parameters"] = Value::Null;
        });
        assert_eq!(rope, published);
    }
    let rope = rope_with(|c| {
        c["rope_scaling"] = Value::Null;
        c["rope_parameters"] = Value::Null;
        c["rope_theta"] = json!(10000);
        c["initial_context_length"] = json!(77);
    });
    assert_eq!(rope, Rope { theta: 10000.0, ..published });
}

#[test]
fn rope_scaling_wins_over_rope_parameters() {
    let rope = rope_with(|c| {
        c["rope_parameters"] = json!({ "rope_type": "default", "rope_theta": 5.0 });
        c["rope_scaling"] = json!({ "type": "yarn", "factor": 8.0, "truncate": null });
        c["rope_theta"] = json!(7.0);
        c["max_position_embeddings"] = json!(131_072);
    });
    let expected = Rope {
        theta: 7.0,
        factor: 8.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_context: 131_072,
        truncate: false,
        attention_factor: None,
    };
    assert_eq!(rope, expected);
    // An empty object is none.
    let rope = rope_with(|c| {
        c["rope_parameters"] = json!({ "rope_theta": 5.0 });
        c["rope_scaling"] = json!({});
    });
    assert_eq!((rope.theta, rope.factor), (5.0, 1.0));
}

#[test]
fn yarn_keys_mean_what_they_mean_in_transformers() {
    let published = Preset::B20.config().rope;
    let of = |key: &str, value: Value| rope_with(|c| c["rope_scaling"][key] = value);
    let with = |attention_factor| Rope { attention_factor, ..published.clone() };
    assert_eq!(of("attention_factor", json!(1.0)), with(Some(1.0)));
    assert_eq!(of("attention_factor", json!(1.3465735902799727)), published);
    assert_eq!(of("attention_factor", Value::Null), published);
    assert_eq!(of("mscale", json!(0.5)), published);
    assert_eq!(of("beta_fast", json!(0)), published);
    assert_eq!(of("factor", Value::Null), published);
    assert_eq!(of("partial_rotary_factor", json!(1.0)), published);
    assert!(of("truncate", json!(true)).truncate);
    let absent = rope_with(|c| {
        c["rope_scaling"].as_object_mut().unwrap().remove("truncate");
    });
    assert!(absent.truncate);
    let scaled = |mscale: f64, all_dim: f64| {
        rope_with(|c| {
            c["rope_scaling"]["mscale"] = json!(mscale);
            c["rope_scaling"]["mscale_all_dim"] = json!(all_dim);
        })
    };
    // (0.1 ln 32 + 1) / (0.05 ln 32 + 1), as transformers printed it.
    let factor = scaled(1.0, 0.5).attention_factor.unwrap();
    assert!((factor - 1.147_693_467_494_715_5).abs() < 1e-12, "{factor}");
    assert_eq!(scaled(1.0, 1.0).attention_factor, Some(1.0));
    assert_eq!(scaled(1.0, 0.0), published);
    let outer = rope_with(|c| c["original_max_position_embeddings"] = json!(8192));
    assert_eq!(outer, Rope { original_context: 8192, ..published });
}

#[test]
fn keys_that_change_nothing_are_ignored() {
    let base = Draft::of("tiny_bf16").config;
    let mut config = base.clone();
    for key in ["attention_dropout", "initializer_range", "router_aux_loss_coef", "frobnicate"] {
        config[key] = json!(0.5);
    }
    config["rope_scaling"]["low_freq_factor"] = json!(4.0);
    config["experts_per_token"] = json!(1);
    assert_eq!(parse(&config), parse(&base));
    config["layer_types"] = json!(["full_attention", "full_attention"]);
    config["sliding_window"] = Value::Null;
    assert_eq!(parse(&config).unwrap().windowed_layers, 0);
}

#[test]
fn wrong_values_are_named() {
    let cases = [
        ("/vocab_size", json!(-5), "vocab_size is -5, expected a positive integer"),
        ("/vocab_size", json!(0), "vocab_size is 0"),
        ("/vocab_size", json!("many"), "vocab_size is \"many\""),
        ("/vocab_size", json!(1 << 30), "vocab_size is 1073741824"),
        ("/hidden_size", json!(2.5), "hidden_size is 2.5, expected a positive integer"),
        ("/hidden_size", json!(u64::MAX), "hidden_size is 18446744073709552000, expected a pos"),
        ("/hidden_size", json!(1 << 21), "hidden_size is 2097152, expected a positive size of"),
        ("/hidden_size", Value::Null, "hidden_size is missing"),
        ("/intermediate_size", json!(0), "intermediate_size is 0, expected a positive size"),
        ("/tie_word_embeddings", json!("no"), "tie_word_embeddings is \"no\", expected true or"),
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
        ("/rope_scaling/factor", json!(1e300), "rope factor is inf"),
        ("/rope_scaling/factor", json!(0.5), "factor is 0.5, expected 1 or more"),
        ("/rope_scaling/rope_theta", json!(0.5), "rope_theta is 0.5"),
        ("/rope_scaling/rope_type", json!("llama3"), "rope_type is llama3"),
        ("/rope_scaling/truncate", json!("no"), "truncate is \"no\", expected true or false"),
        ("/rope_scaling/attention_factor", json!(-2), "attention_factor is -2"),
        ("/rope_scaling/attention_factor", json!("x"), "attention_factor is \"x\""),
        ("/rope_scaling/mscale", json!([]), "mscale is []"),
        ("/rope_scaling/full_attention", json!({}), "the rope parameters name full_attention"),
        ("/rope_scaling/partial_rotary_factor", json!(0.5), "partial_rotary_factor is 0.5"),
        ("/rope_scaling", json!(3), "rope_scaling is 3, expected an object"),
        ("/partial_rotary_factor", json!(0.25), "partial_rotary_factor is 0.25, expected 1"),
        ("/swiglu_alpha", json!(1.0), "swiglu_alpha is 1, expected 1.702"),
        ("/attention_bias", json!(0), "attention_bias is 0, expected true or false"),
        ("/per_layer_config", json!({"1": {}}), "per_layer_config is {\"1\":{}}"),
        ("/num_experts", json!(9), "num_local_experts is 8 and num_experts is 9"),
        ("/sliding_window", Value::Null, "sliding_window is missing"),
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
    assert!(config::parse("{}").unwrap_err().contains("num_hidden_layers is missing"));
}

#[test]
fn a_config_of_other_bytes_than_utf8_is_refused() {
    let dir = Draft::of("tiny_bf16").write();
    fs::write(dir.path().join("config.json"), [b'{', 0xff, b'}']).unwrap();
    let line = refusal(dir.path());
    assert!(line.contains("config.json"), "{line}");
}

#[test]
fn widths_are_padded_to_blocks() {
    let mut config = Draft::of("tiny_bf16").config;
    config["hidden_size"] = json!(8);
    config["intermediate_size"] = json!(65);
    let read = parse(&config).unwrap();
    assert_eq!((read.hidden_size, read.intermediate_size), (32, 96));
    // The mean is over four times as many elements.
    assert_eq!(read.rms_norm_eps, 1e-5 / 4.0);
}
