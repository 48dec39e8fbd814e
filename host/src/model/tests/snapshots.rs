//! Safetensors snapshots.

use serde_json::json;

use super::*;

const NORM: &str = "model.layers.1.input_layernorm.weight";
const SCALES: &str = "model.layers.1.mlp.experts.down_proj_scales";

#[test]
fn both_goldens_load() {
    for name in ["tiny_bf16", "tiny_mxfp4"] {
        let weights = open(&data(name)).unwrap();
        assert_eq!(weights.config.vocab_size, 512);
        assert_eq!(weights.config.windowed_layers, 1);
        assert_eq!(weights.layers.len(), 2);
        let mxfp4 = matches!(weights.layers[1].down.weights, ExpertWeights::Mxfp4 { .. });
        assert_eq!(mxfp4, name == "tiny_mxfp4");
    }
}

#[test]
fn shards_hold_the_same_model() {
    let draft = Draft::of("tiny_mxfp4");
    let dir = draft.write_shards();
    assert_eq!(values(&open(dir.path()).unwrap()), values(&open(&data("tiny_mxfp4")).unwrap()));
}

/// The same model under OpenAI's names: q, k, v fused, bf16 experts `[experts, out, in]`.
fn original(mut draft: Draft) -> Draft {
    let mut tensors = BTreeMap::new();
    for layer in 0..2 {
        for kind in ["weight", "bias"] {
            let mut fused = Vec::new();
            let mut shape = Vec::new();
            for part in ["q", "k", "v"] {
                let name = format!("model.layers.{layer}.self_attn.{part}_proj.{kind}");
                let entry = draft.tensors.remove(&name).unwrap();
                fused.extend(entry.bytes);
                match shape.first_mut() {
                    Some(rows) => *rows += entry.shape[0],
                    None => shape = entry.shape,
                }
            }
            let entry = Entry { dtype: StDtype::BF16, shape, bytes: fused };
            tensors.insert(format!("block.{layer}.attn.qkv.{kind}"), entry);
        }
    }
    let renames = [
        ("model.embed_tokens.weight", "embedding.weight"),
        ("lm_head.weight", "unembedding.weight"),
        ("model.norm.weight", "norm.scale"),
        ("model.layers.", "block."),
        ("input_layernorm.weight", "attn.norm.scale"),
        ("post_attention_layernorm.weight", "mlp.norm.scale"),
        ("self_attn.o_proj", "attn.out"),
        ("self_attn.sinks", "attn.sinks"),
        ("mlp.router", "mlp.gate"),
        ("mlp.experts.gate_up_proj_bias", "mlp.mlp1_bias"),
        ("mlp.experts.down_proj_bias", "mlp.mlp2_bias"),
        ("mlp.experts.gate_up_proj", "mlp.mlp1_weight"),
        ("mlp.experts.down_proj", "mlp.mlp2_weight"),
        ("_blocks", ".blocks"),
        ("_scales", ".scales"),
    ];
    for (name, mut entry) in draft.tensors {
        let renamed = renames.iter().fold(name, |name, (from, to)| name.replace(from, to));
        if renamed.ends_with("mlp1_weight") || renamed.ends_with("mlp2_weight") {
            entry = transposed(&entry);
        }
        tensors.insert(renamed, entry);
    }
    let config = json!({
        "num_hidden_layers": 2, "num_experts": 8, "experts_per_token": 4, "vocab_size": 512,
        "hidden_size": 128, "intermediate_size": 128, "swiglu_limit": 7.0, "head_dim": 64,
        "num_attention_heads": 8, "num_key_value_heads": 2, "sliding_window": 128,
        "initial_context_length": 4096, "rope_theta": 150000, "rope_scaling_factor": 32.0,
        "rope_ntk_alpha": 1, "rope_ntk_beta": 32,
    });
    Draft { config, tensors }
}

/// `[experts, a, b]` as `[experts, b, a]`, elements of two bytes.
fn transposed(entry: &Entry) -> Entry {
    let [experts, a, b] = entry.shape[..] else { panic!("three dimensions") };
    let old: &[[u8; 2]] = entry.bytes.as_chunks().0;
    let element = |e: usize, row: usize, col: usize| old[(e * a + row) * b + col];
    let bytes = (0..experts)
        .flat_map(|e| (0..b).flat_map(move |col| (0..a).flat_map(move |row| element(e, row, col))))
        .collect();
    Entry { dtype: entry.dtype, shape: vec![experts, b, a], bytes }
}

#[test]
fn original_names_hold_the_same_model() {
    for name in ["tiny_bf16", "tiny_mxfp4"] {
        let expected = open(&data(name)).unwrap();
        let dir = original(Draft::of(name)).write();
        let weights = open(dir.path()).unwrap();
        assert_eq!(weights.config, expected.config);
        assert_eq!(values(&weights), values(&expected));
    }
}

#[test]
fn files_of_a_wrong_size_are_refused() {
    let draft = Draft::of("tiny_mxfp4");
    let whole = draft.file(|_| true);
    let header = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let dir = draft.write();
    let path = dir.path().join("model.safetensors");
    for (size, expected) in [
        (0, "the file is empty"),
        (7, "too short for safetensors"),
        (8, "truncated"),
        (header - 1, "truncated"),
        (header, "truncated"),
        (whole.len() / 2, "truncated"),
        (whole.len() - 1, "truncated"),
        (whole.len() + 1, "oversized"),
    ] {
        let mut bytes = whole.clone();
        bytes.resize(size, 0);
        fs::write(&path, bytes).unwrap();
        let line = refusal(dir.path());
        assert!(line.contains(expected) && line.contains("model.safetensors"), "{size}: {line}");
    }
}

#[test]
fn lying_headers_are_refused() {
    let file = |header: &str| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes
    };
    let tensor = |shape: &str, offsets: &str| {
        file(&format!(r#"{{"a":{{"dtype":"BF16","shape":{shape},"data_offsets":{offsets}}}}}"#))
    };
    // Eight tensors of 2^61 - 1 bytes and one of 15 end two bytes before the address space does.
    let step = usize::MAX / 8;
    let many: Vec<String> = (0..9)
        .map(|i| {
            let size = if i < 8 { step } else { 6 };
            let (start, end) = (i * step, i * step + size);
            format!(r#""t{i}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{start},{end}]}}"#)
        })
        .collect();
    let cases = [
        (u64::MAX.to_le_bytes().to_vec(), "header length is 18446744073709551615"),
        (100_000_001u64.to_le_bytes().to_vec(), "expected at most 100000000"),
        (file("not json"), "safetensors header"),
        (file("{\"a\": \u{7f}}"), "safetensors header"),
        (file(&"[".repeat(5000)), "safetensors header"),
        (tensor("[-1]", "[0,2]"), "safetensors header"),
        (tensor("[1e3]", "[0,2000]"), "safetensors header"),
        (tensor("[18446744073709551615,3]", "[0,2]"), "safetensors header"),
        (tensor("[4611686018427387904]", "[0,9223372036854775808]"), "safetensors header"),
        (tensor("[1]", "[2,0]"), "safetensors header"),
        (tensor("[1]", "[2,4]"), "safetensors header"),
        (tensor("[2]", "[0,2]"), "safetensors header"),
        (tensor("[1]", "[0,2]"), "truncated"),
        (file(&format!("{{{}}}", many.join(","))), "overflow"),
    ];
    let dir = Draft::of("tiny_mxfp4").write();
    for (bytes, expected) in cases {
        fs::write(dir.path().join("model.safetensors"), &bytes).unwrap();
        let line = refusal(dir.path());
        assert!(line.contains(expected), "{line}");
        assert!(line.len() < 600, "{line}");
    }
}

#[test]
fn wrong_dtypes_and_shapes_are_named() {
    type Change = fn(&mut Entry);
    let cases: [(&str, Change, &str); 5] = [
        (NORM, |e| e.dtype = StDtype::I16, "is I16 [128], expected BF16, F16 or F32 [128]"),
        (
            NORM,
            |e| (e.shape, e.bytes) = (vec![64], vec![0; 128]),
            "is BF16 [64], expected BF16, F16 or F32 [128]",
        ),
        (NORM, |e| e.shape = vec![128, 1], "is BF16 [128, 1], expected BF16, F16 or F32 [128]"),
        (SCALES, |e| e.shape = vec![8, 4, 128], "is U8 [8, 4, 128], expected U8 [8, 128, 4]"),
        (SCALES, |e| e.dtype = StDtype::I8, "is I8 [8, 128, 4], expected U8 [8, 128, 4]"),
    ];
    for (name, change, expected) in cases {
        let mut draft = Draft::of("tiny_mxfp4");
        change(draft.entry(name));
        let dir = draft.write();
        let line = refusal(dir.path());
        assert!(line.contains(&format!("tensor {name} {expected}")), "{line}");
    }
}

#[test]
fn missing_and_unknown_tensors_are_named() {
    let mut draft = Draft::of("tiny_mxfp4");
    draft.tensors.remove(NORM);
    draft.tensors.remove(SCALES);
    let line = refusal(draft.write().path());
    assert!(line.contains("2 missing tensors:"), "{line}");
    assert!(line.contains(NORM) && line.contains(SCALES), "{line}");

    let mut draft = Draft::of("tiny_mxfp4");
    let spare = draft.entry(NORM).clone();
    draft.tensors.insert("model.layers.2.input_layernorm.weight".to_owned(), spare.clone());
    let line = refusal(draft.write().path());
    assert!(line.contains("1 unknown tensors: model.layers.2.input_layernorm.weight"), "{line}");

    draft.tensors = [("transformer.wte.weight".to_owned(), spare)].into();
    let line = refusal(draft.write().path());
    assert!(line.contains("unknown tensors: transformer.wte.weight"), "{line}");
}

#[test]
fn both_forms_of_an_expert_at_once_are_refused() {
    let mut draft = Draft::of("tiny_bf16");
    let scales = Draft::of("tiny_mxfp4").entry(SCALES).clone();
    draft.tensors.insert(SCALES.to_owned(), scales);
    let line = refusal(draft.write().path());
    assert!(line.contains("down_proj_blocks"), "{line}");
}

#[test]
fn values_that_are_not_finite_are_named() {
    let cases = [
        (NORM, 0x7fc0, "NaN"),
        (NORM, 0xff80, "-inf"),
        ("model.norm.weight", 0x7f80, "inf"),
        ("model.layers.0.self_attn.sinks", 0x7fff, "NaN"),
        ("model.layers.0.mlp.experts.down_proj_bias", 0x7f80, "inf"),
    ];
    for (name, bits, shown) in cases {
        let mut draft = Draft::of("tiny_mxfp4");
        draft.entry(name).bytes[6..8].copy_from_slice(&u16::to_le_bytes(bits));
        let line = refusal(draft.write().path());
        assert!(line.contains(&format!("tensor {name} holds {shown} at index 3")), "{line}");
    }
}

#[test]
fn broken_indexes_are_refused() {
    let dir = Draft::of("tiny_mxfp4").write_shards();
    fs::remove_file(dir.path().join(SHARDS[1])).unwrap();
    let line = refusal(dir.path());
    assert!(line.contains(&format!("1 of 2 shards missing: {}", SHARDS[1])), "{line}");

    for (text, expected) in [
        ("", "not JSON"),
        ("[]", "weight_map is missing"),
        (r#"{"weight_map": 3}"#, "weight_map is missing"),
        (r#"{"weight_map": {}}"#, "weight_map is empty"),
        (r#"{"weight_map": {"a": 1}}"#, "puts a in 1, expected a file name"),
        (r#"{"weight_map": {"a": "../x"}}"#, r#"puts a in "../x", expected a file name"#),
        (r#"{"weight_map": {"a": "/etc/passwd"}}"#, "expected a file name"),
        (r#"{"weight_map": {"a": ".."}}"#, "expected a file name"),
    ] {
        fs::write(dir.path().join(INDEX), text).unwrap();
        let line = refusal(dir.path());
        assert!(line.contains(expected), "{line}");
    }
}

#[test]
fn an_index_that_disagrees_with_its_shards_is_refused() {
    let draft = Draft::of("tiny_mxfp4");
    let map = |place: fn(&str) -> usize| -> serde_json::Map<String, Value> {
        draft.tensors.keys().map(|n| (n.clone(), Value::from(SHARDS[place(n)]))).collect()
    };
    let true_place = |name: &str| usize::from(!name.starts_with("model.layers.0."));
    let dir = draft.write_shards();

    let mut moved = map(true_place);
    moved[NORM] = Value::from(SHARDS[0]);
    write_index(dir.path(), moved);
    let line = refusal(dir.path());
    assert!(line.contains(&format!("tensor {NORM} is not in {}", SHARDS[0])), "{line}");

    let mut short = map(true_place);
    short.remove(NORM);
    write_index(dir.path(), short);
    let line = refusal(dir.path());
    assert!(line.contains(&format!("tensor {NORM} of the shards is not listed")), "{line}");

    write_index(dir.path(), map(true_place));
    fs::write(dir.path().join(SHARDS[1]), draft.file(|_| true)).unwrap();
    let line = refusal(dir.path());
    assert!(line.contains("is also in"), "{line}");
}

#[test]
fn paths_that_hold_no_model_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path();
    assert!(refusal(&empty.join("nothing")).contains("nothing"));
    assert!(refusal(empty).contains("config.json is not there"));
    let line = refusal(&data("tiny_bf16").join("model.safetensors"));
    assert!(line.contains("expected the folder"), "{line}");

    Draft::of("tiny_bf16").write_config(empty);
    let line = refusal(empty);
    assert!(line.contains("neither model.safetensors nor"), "{line}");
    fs::create_dir(empty.join("model.safetensors")).unwrap();
    let line = refusal(empty);
    assert!(line.contains("model.safetensors"), "{line}");
}

#[test]
fn a_single_file_wins_over_an_index_beside_it() {
    let draft = Draft::of("tiny_bf16");
    let dir = draft.write_shards();
    let mut other = draft.clone();
    other.entry(NORM).bytes[..2].copy_from_slice(&0x4000u16.to_le_bytes());
    fs::write(dir.path().join("model.safetensors"), other.file(|_| true)).unwrap();
    assert_eq!(open(dir.path()).unwrap().layers[1].attn_norm[0], 2.0);
    // It counts even where the index is broken.
    write_index(dir.path(), Default::default());
    assert_eq!(open(dir.path()).unwrap().layers[1].attn_norm[0], 2.0);
}

#[test]
fn attention_without_biases_has_biases_of_zero() {
    let mut draft = Draft::of("tiny_bf16");
    let whole = open(&data("tiny_bf16")).unwrap();
    draft.config["attention_bias"] = json!(false);
    let line = refusal(draft.write().path());
    assert!(line.contains("8 unknown tensors: model.layers.0.self_attn.k_proj.bias"), "{line}");
    draft.tensors.retain(|name, _| !name.contains("self_attn") || !name.ends_with(".bias"));
    let weights = open(draft.write().path()).unwrap();
    for (layer, biased) in weights.layers.iter().zip(&whole.layers) {
        for (linear, biased) in
            [(&layer.q, &biased.q), (&layer.v, &biased.v), (&layer.o, &biased.o)]
        {
            assert_eq!(linear.bias, vec![0.0; linear.weight.rows]);
            assert_eq!(linear.weight.data[..], biased.weight.data[..]);
        }
        assert_eq!(layer.router.bias, biased.router.bias);
    }
    draft.config["attention_bias"] = json!(true);
    let line = refusal(draft.write().path());
    assert!(line.contains("8 missing tensors: model.layers.0.self_attn.k_proj.bias"), "{line}");
}

#[test]
fn binary16_is_read_exactly() {
    let mut draft = Draft::of("tiny_bf16");
    let entry = draft.entry(NORM);
    entry.dtype = StDtype::F16;
    // One, the smallest subnormal, the largest finite number, minus a third, minus zero.
    for (to, bits) in entry.bytes.chunks_mut(2).zip([0x3c00u16, 1, 0x7bff, 0xb555, 0x8000]) {
        to.copy_from_slice(&bits.to_le_bytes());
    }
    let expected = [1.0, f32::powi(2.0, -24), 65504.0, -1365.0 / 4096.0, -0.0];
    let found = &open(draft.write().path()).unwrap().layers[1].attn_norm[..5];
    assert_eq!(found.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), expected.map(f32::to_bits));
    draft.entry(NORM).bytes[..2].copy_from_slice(&0x7c00u16.to_le_bytes());
    assert!(refusal(draft.write().path()).contains("holds inf at index 0"));
}

#[test]
fn tied_embeddings_are_one_matrix() {
    const ENDS: [&str; 2] = ["model.embed_tokens.weight", "lm_head.weight"];
    let whole = Draft::of("tiny_bf16");
    for absent in ENDS {
        let mut draft = whole.clone();
        draft.tensors.remove(absent);
        let line = refusal(draft.write().path());
        assert!(line.contains(&format!("1 missing tensors: {absent}")), "{line}");
        draft.config["tie_word_embeddings"] = json!(true);
        let weights = open(draft.write().path()).unwrap();
        let [present] = ENDS.iter().filter(|&&name| name != absent).collect::<Vec<_>>()[..] else {
            panic!("one is left")
        };
        for matrix in [&weights.embedding, &weights.unembedding] {
            assert_eq!(matrix.data[..], whole.tensors[*present].bytes);
        }
    }
    let mut draft = whole.clone();
    draft.config["tie_word_embeddings"] = json!(true);
    // Two that differ stay two.
    let weights = open(draft.write().path()).unwrap();
    assert_eq!(weights.unembedding.data[..], whole.tensors[ENDS[1]].bytes);
    draft.tensors.retain(|name, _| !ENDS.contains(&name.as_str()));
    let line = refusal(draft.write().path());
    assert!(line.contains("2 missing tensors"), "{line}");
}

#[test]
fn saved_frequencies_are_ignored() {
    let mut draft = Draft::of("tiny_bf16");
    let spare = draft.entry(NORM).clone();
    for name in ["model.rotary_emb.inv_freq", "model.layers.0.self_attn.rotary_emb.inv_freq"] {
        draft.tensors.insert(name.to_owned(), spare.clone());
    }
    assert_eq!(
        values(&open(draft.write().path()).unwrap()),
        values(&open(&data("tiny_bf16")).unwrap())
    );
}

#[test]
fn mxfp4_has_no_width_to_pad() {
    let mut draft = Draft::of("tiny_mxfp4");
    draft.config["intermediate_size"] = json!(120);
    let line = refusal(draft.write().path());
    assert!(
        line.contains("intermediate_size 120, expected multiples of 32 for experts in MXFP4"),
        "{line}"
    );
}
