//! Files that are not what they should be.

use serde_json::{Value, json};

use super::{Case, case, check};
use crate::{byte_tokenizer, tiny_model};

#[test]
fn files_that_are_not_there() {
    check(&[
        case(
            "run -c MODEL -z bytes.bin --device cpu -i none.txt -o out.txt",
            &["none.txt", "No such"],
        ),
        case("run -c none --device cpu -i in.txt -o out.txt", &["none", "No such file"]),
        case("run -z none.bin -i in.txt -o out.txt", &["none.bin", "No such file"]),
        case("RUN -v none.txt", &["-v none.txt", "No such file"]),
        case(
            "run -c MODEL -z bytes.bin --device cpu -i in.txt -o no/such/out",
            &["no/such/out", "No such"],
        ),
        case("run -c MODEL -z bytes.bin --device cpu -i in.txt -o .", &["folder"]),
        case("run -c MODEL -z bytes.bin --device cpu -i . -o out.txt", &[".", "directory"]),
        case(
            "run -c MODEL -z bytes.bin --device cpu -i in.txt -o /dev/full",
            &["/dev/full", "No space"],
        ),
        case("decode -i none.txt", &["none.txt"]),
        case("golden none", &["none"]),
        case("export -c none -o x.bin", &["none"]),
        case("export -c MODEL -o no/such.bin", &["no", "No such file"]),
        case("export -c MODEL -o .", &["folder"]),
        case("bench cpu -c none", &["none"]),
        case("synth --preset nano -o in.txt", &["in.txt"]),
        case("run --device emu:gfx1151 --kernels . -i in.txt -o out.txt", &["gfx1151.co"]),
    ]);
}

#[test]
fn prompts_that_lie() {
    let prompts = |file: &[u8], parts: &[&'static str]| {
        case("RUN -n 20", &[&["in.txt"], parts].concat()).file("in.txt", file)
    };
    let megabyte = format!("1\n{}\n", "a".repeat(1 << 20));
    check(&[
        prompts(b"", &["line 1", "count is \"\""]),
        prompts(b"many\nhello\n", &["line 1", "\"many\"", "1 or more"]),
        prompts(b"-1\nhello\n", &["line 1", "\"-1\""]),
        prompts(b"0\n", &["line 1", "\"0\""]),
        prompts(b"3\na\nb\n", &["count is 3", "2 prompts follow"]),
        prompts(b"1\na\nb\n", &["count is 1", "2 prompts follow"]),
        prompts(b"99999999999\na\n", &["count is 99999999999", "1 prompts follow"]),
        prompts(b"2\na\n\n", &["line 3", "prompt 1 is empty"]),
        prompts(b"2\r\n\r\nb\r\n", &["line 2", "prompt 0 is empty"]),
        prompts(b"1\n\xff\xfe\n", &["line 2", "byte 0 is not UTF-8"]),
        prompts(b"\x1b[2J\n", &["line 1"]),
        prompts(b"2\nok\na prompt of 22 tokens.\n", &["prompt 1 (line 3)", "22 tokens", "20 (-n)"]),
        prompts(megabyte.as_bytes(), &["prompt 0 (line 2)", "1048576 tokens", "20 (-n)"]),
        // o200k_harmony on a model with a small vocabulary.
        case(
            "run -c MODEL --device cpu -i in.txt -o out.txt",
            &["prompt 0 (line 2)", "token id 176289", "expected 0 to 511"],
        )
        .file("in.txt", "1\nExplain the significance of the ROCm WMMA on RDNA3.\n"),
    ]);
}

#[test]
fn token_ids_that_are_none() {
    let decode = |line: &str, file: &[u8], parts: &[&'static str]| {
        case(&format!("decode {line} -z bytes.bin -i ids.txt"), parts).file("ids.txt", file)
    };
    check(&[
        decode("-1", b"1 2\n3 x\n", &["ids.txt", "line 2", "\"x\" is no token id"]),
        decode("2", b"1 2\n3\n", &["no line 2", "it has 2"]),
        decode("0", b"4294967296\n", &["line 1", "4294967296", "no token id"]),
        decode("0", b"-1\n", &["line 1", "-1"]),
        decode("0", b"", &["no line 0", "it has 0"]),
        decode("-1", b"\xff\n", &["ids.txt", "UTF-8"]),
    ]);
}

#[test]
fn tokenizers_that_lie() {
    let good = byte_tokenizer();
    let mut negative = good.clone();
    negative[8..12].copy_from_slice(&(-1i32).to_le_bytes());
    let tokenizer = |file: &[u8], part: &'static str| {
        case("run -z bad.bin -i in.txt -o out.txt", &["bad.bin", part]).file("bad.bin", file)
    };
    check(&[
        tokenizer(&good[..good.len() - 3], "ends inside the bytes of id 511"),
        tokenizer(&negative, "length of id 0 is -1"),
        tokenizer(b"garbage that is long enough", "max_token_length"),
        tokenizer(b"", "bad.bin"),
    ]);
}

#[test]
fn journals_of_others() {
    check(&[
        case("RUN", &["out.txt.journal", "--resume"]).file("out.txt.journal", "anything"),
        case("RUN --resume", &["out.txt.journal", "line 1"]).file("out.txt.journal", "anything"),
        case("RUN --resume", &["another job", "format"])
            .file("out.txt.journal", "gptoss getp journal 1\n--\n"),
        case("RUN --resume", &["out.txt", "no journal", "2 lines, expected 1"])
            .file("out.txt", "1 2\n3\n"),
        case("RUN --resume", &["out.txt", "no journal", "line 1"]).file("out.txt", "1 2\n"),
        case(
            "run -c MODEL -z bytes.bin --device cpu -i in.txt -o /dev/null --resume",
            &["/dev/null"],
        ),
    ]);
}

/// The tiny model with one key of its configuration changed; null takes it away.
fn config(key: &str, value: Value, parts: &[&'static str]) -> Case {
    let text = std::fs::read_to_string(tiny_model().join("config.json")).unwrap();
    let mut root: Value = serde_json::from_str(&text).unwrap();
    root[key] = value;
    with_config(root.to_string().as_bytes(), parts)
}

const COPY: &str = "run -c model -z bytes.bin --device cpu -i in.txt -o out.txt";

fn with_config(text: &[u8], parts: &[&'static str]) -> Case {
    case(COPY, &[&["config"], parts].concat()).model_copy().file("model/config.json", text)
}

#[test]
fn configurations_that_lie() {
    check(&[
        with_config(b"", &["JSON"]),
        with_config(b"[]", &["JSON object"]),
        with_config(b"{\"model_type\": \"gpt_oss\"", &["JSON"]),
        with_config(b"\xff\xfe", &["config.json"]),
        config("model_type", json!("llama"), &["model_type", "gpt_oss"]),
        config("vocab_size", Value::Null, &["vocab_size", "missing"]),
        config("vocab_size", json!(-1), &["vocab_size", "-1"]),
        config("vocab_size", json!("512"), &["vocab_size", "512"]),
        config("vocab_size", json!(1u64 << 60), &["vocab_size"]),
        config("num_hidden_layers", json!(0), &["layer"]),
        config("num_hidden_layers", json!(1_000_000), &["layer"]),
        config("num_experts_per_tok", json!(9), &["num_experts_per_tok", "9"]),
        config("num_key_value_heads", json!(3), &["num_attention_heads", "multiple"]),
        config("head_dim", json!(63), &["head_dim", "63"]),
        config("rms_norm_eps", json!(-1e-5), &["rms_norm_eps"]),
        config("swiglu_limit", json!("seven"), &["swiglu_limit"]),
        config("layer_types", json!(["full_attention"]), &["layer_types", "1 entries"]),
        config("layer_types", json!(["odd", "full_attention"]), &["layer_types[0]", "odd"]),
        config("hidden_act", json!("relu"), &["hidden_act", "relu", "silu"]),
        config("sliding_window", json!(0), &["sliding_window"]),
    ]);
}

#[test]
fn weights_that_are_not_the_configurations() {
    let weights = std::fs::read(tiny_model().join("model.safetensors")).unwrap();
    let model = |bytes: &[u8], parts: &[&'static str]| {
        case(COPY, &[&["model"], parts].concat())
            .model_copy()
            .file("model/model.safetensors", bytes)
    };
    let mut long_header = weights.clone();
    long_header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut no_json = weights.clone();
    no_json[8..16].copy_from_slice(b"########");
    let header_bytes = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    let mut not_finite = weights.clone();
    not_finite[8 + header_bytes..].fill(0xff);
    let renamed = String::from_utf8(weights[8..8 + header_bytes].to_vec()).unwrap();
    let renamed = renamed.replace("model.norm.weight", "model.morn.weight");
    let renamed = [&weights[..8], renamed.as_bytes(), &weights[8 + header_bytes..]].concat();
    check(&[
        model(b"", &["empty"]),
        model(b"1234567", &["safetensors"]),
        model(&weights[..weights.len() - 1], &["safetensors"]),
        model(&weights[..100], &["truncated"]),
        model(&long_header, &["header"]),
        model(&no_json, &["header"]),
        model(&not_finite, &["finite"]),
        model(&renamed, &["model.norm.weight"]),
        config_of_other_size("hidden_size", 256),
        config_of_other_size("vocab_size", 513),
        config_of_other_size("num_local_experts", 16),
        case(COPY, &["model"]).file("model", "a file"),
        case(COPY, &["index"])
            .file("model/config.json", std::fs::read(tiny_model().join("config.json")).unwrap())
            .file("model/model.safetensors.index.json", "{}"),
        case("run -c model/model.safetensors -i in.txt -o out.txt", &["folder"]).model_copy(),
    ]);
}

/// The weights are named: the configuration is whole, and not theirs.
fn config_of_other_size(key: &str, value: usize) -> Case {
    let Case { line, files, copies_model, .. } = config(key, json!(value), &[]);
    Case { line, files, copies_model, parts: vec!["model.safetensors"] }
}

#[test]
fn reference_files_that_lie() {
    let bin = |bytes: &[u8], parts: &[&'static str]| {
        case("run -c bad.bin -z bytes.bin --device cpu -i in.txt -o out.txt", parts)
            .file("bad.bin", bytes)
    };
    let header = |fields: [i32; 15]| fields.map(i32::to_le_bytes).concat();
    let good =
        [512, 128, 8, 4, 128, 2, 64, 8, 2, 2048, 4096, 0x4812_7c00, 0x4200_0000, 128, 0x40e0_0000];
    let with = |index: usize, value: i32| {
        let mut fields = good;
        fields[index] = value;
        header(fields)
    };
    check(&[
        bin(b"", &["bad.bin"]),
        bin(b"GGUF\x03\0\0\0 and so on", &["bad.bin"]),
        bin(&header(good), &["bad.bin", "bytes"]),
        bin(&with(0, -1), &["bad.bin", "vocab_size", "-1"]),
        bin(&with(5, 0), &["bad.bin", "n_layers", "0"]),
        bin(&with(0, i32::MAX), &["bad.bin", "vocab_size"]),
        bin(&with(11, 150_000), &["bad.bin", "rope_theta", "150000"]),
        case("export -c bad.bin -o x.bin", &["bad.bin"]).file("bad.bin", header(good)),
    ]);
}

#[test]
fn goldens_that_lie() {
    let golden = |text: &str| {
        case("golden model --device cpu", &["golden.json"])
            .model_copy()
            .file("model/golden.json", text)
    };
    check(&[
        golden(""),
        golden("{}"),
        golden("{\"cases\": 3}"),
        golden("{\"cases\": [{\"prompt\": [512], \"rows\": [], \"greedy\": []}]}"),
        golden("{\"cases\": [{\"prompt\": [-1], \"rows\": [], \"greedy\": []}]}"),
    ]);
}
