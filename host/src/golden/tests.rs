//! An engine that knows its answers: what passes, what fails, what is refused.

use super::*;
use crate::engine::{Chunk, Limits, Outcome, Ticket, Tokens};
use crate::model::ModelConfig;
use crate::pages::Geometry;

const VOCAB: usize = 4;

/// Gives logits `[0, 1, 2, 3] + shift` everywhere, unless the last token was 3: then token 1 wins.
struct Fixed {
    config: ModelConfig,
    limits: Limits,
    shift: f32,
    answer: Vec<Outcome>,
}

impl Fixed {
    fn new(shift: f32) -> Fixed {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/tiny_bf16/config.json");
        let mut config =
            crate::model::config::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
        config.vocab_size = VOCAB;
        let limits = Limits {
            max_chunks: 1,
            max_step_tokens: 2,
            max_positions: 16,
            max_in_flight: 1,
            pages: Geometry { full: 3, windowed: 3, window: 128 },
        };
        Fixed { config, limits, shift, answer: Vec::new() }
    }

    fn logits(&self, token: u32) -> [f32; VOCAB] {
        let logits = if token == 3 { [0.0, 3.0, 2.0, 1.0] } else { [0.0, 1.0, 2.0, 3.0] };
        logits.map(|l| l + self.shift)
    }
}

impl Engine for Fixed {
    fn config(&self) -> &ModelConfig {
        &self.config
    }
    fn limits(&self) -> Limits {
        self.limits
    }
    fn describe(&self) -> String {
        "fixed".to_owned()
    }
    fn submit(&mut self, chunks: &[Chunk<'_>]) -> Result<Ticket, EngineError> {
        let [Chunk { tokens: Tokens::Known(tokens), want, .. }] = chunks else {
            return Err(EngineError::Invalid("one chunk at a time".to_owned()));
        };
        assert!(tokens.len() <= self.limits.max_step_tokens);
        self.answer = vec![Ok(match want {
            Want::Logits => Output::Logits(tokens.iter().flat_map(|&t| self.logits(t)).collect()),
            Want::Token(_) => Output::Token(argmax(&self.logits(tokens[0]))),
            Want::Nothing => Output::Nothing,
        })];
        Ok(Ticket::new(1))
    }
    fn wait(&mut self, _: Ticket) -> Result<Vec<Outcome>, EngineError> {
        Ok(std::mem::take(&mut self.answer))
    }
}

/// What [`Fixed`] does with a prompt of five tokens.
fn golden() -> Golden {
    let lse = moments(&[0.0, 1.0, 2.0, 3.0]).0;
    let text = format!(
        r#"{{"cases": [{{"prompt": [0, 1, 2, 3, 0], "greedy": [3, 1, 3], "greedy_gap": [1, 1, 0.01],
        "rows": [{{"pos": 2, "top_ids": [3, 2], "top_logits": [3.0, 2.0], "lse": {lse}, "mean": 1.5}},
                 {{"pos": 3, "top_ids": [1], "top_logits": [3.0]}}]}}]}}"#
    );
    parse(&text, VOCAB).unwrap()
}

fn report(golden: &Golden, engine: &mut Fixed, precision: Precision) -> (bool, String) {
    let mut text = Vec::new();
    let pass = run(golden, engine, precision, &mut text).unwrap();
    (pass, String::from_utf8(text).unwrap())
}

#[test]
fn equal_answers_pass() {
    for precision in [Precision::F32, Precision::Bf16] {
        let (pass, text) = report(&golden(), &mut Fixed::new(0.0), precision);
        assert!(pass, "{text}");
        assert!(text.contains("prompt 5, 2 rows") && text.contains("greedy 3/3"), "{text}");
        assert!(text.ends_with("PASS\n"), "{text}");
    }
}

#[test]
fn shifted_logits_pass_only_within_the_tolerance() {
    let cases = [(1.9e-3, true, true), (2.1e-3, false, true), (0.1, false, false)];
    for (shift, f32_passes, bf16_passes) in cases {
        let engine = &mut Fixed::new(shift);
        assert_eq!(report(&golden(), engine, Precision::F32).0, f32_passes, "{shift}");
        assert_eq!(report(&golden(), engine, Precision::Bf16).0, bf16_passes, "{shift}");
    }
}

#[test]
fn nan_fails() {
    for precision in [Precision::F32, Precision::Bf16] {
        let (pass, text) = report(&golden(), &mut Fixed::new(f32::NAN), precision);
        assert!(!pass, "{text}");
    }
}

#[test]
fn a_logit_that_is_not_listed_shows_in_the_moments() {
    let mut golden = golden();
    golden.cases[0].rows[0].mean = Some(1.4);
    assert!(!report(&golden, &mut Fixed::new(0.0), Precision::F32).0);
}

#[test]
fn bf16_may_leave_the_greedy_path_at_a_small_gap_only() {
    for (step, bf16_passes) in [(2, true), (1, false)] {
        let mut golden = golden();
        golden.cases[0].greedy[step] = 0;
        let engine = &mut Fixed::new(0.0);
        let (pass, text) = report(&golden, engine, Precision::Bf16);
        assert_eq!(pass, bf16_passes, "{text}");
        assert!(text.contains(&format!("greedy {step}/3")), "{text}");
        assert!(!report(&golden, engine, Precision::F32).0);
    }
}

#[test]
fn a_case_longer_than_the_engine_is_refused() {
    let mut engine = Fixed::new(0.0);
    engine.limits.max_positions = 7;
    let error = run(&golden(), &mut engine, Precision::F32, &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "case 0: the case takes 8 positions, the engine has 7");
}

#[test]
fn malformed_files_are_refused_by_name() {
    let row = r#"{"pos": 0, "top_ids": [1], "top_logits": [1.0]}"#;
    let case = |prompt: &str, rows: &str, greedy: &str, gap: &str| {
        format!(
            r#"{{"cases": [{{"prompt": {prompt}, "rows": [{rows}], "greedy": {greedy}, "greedy_gap": {gap}}}]}}"#
        )
    };
    let cases = [
        (String::new(), "not a golden file"),
        ("{".to_owned(), "not a golden file"),
        ("[]".to_owned(), "not a golden file"),
        (r#"{"cases": []}"#.to_owned(), "cases is empty"),
        (case("[]", row, "[]", "[]"), "case 0: prompt is empty"),
        (case("[1]", "", "[]", "[]"), "case 0: rows is empty"),
        (case("[-1]", row, "[]", "[]"), "not a golden file: invalid value: integer `-1`"),
        (case("[4]", row, "[]", "[]"), "case 0: token 4 is outside the vocabulary of 4"),
        (case("[1]", row, "[9]", "[1]"), "token 9 is outside the vocabulary of 4"),
        (case("[1]", row, "[1, 2]", "[1]"), "greedy has 2 tokens and greedy_gap 1 entries"),
        (
            case("[1]", r#"{"pos": 1, "top_ids": [1], "top_logits": [1]}"#, "[]", "[]"),
            "case 0: pos is 1, the prompt has 1",
        ),
        (
            case("[1]", r#"{"pos": 0, "top_ids": [1, 2], "top_logits": [1]}"#, "[]", "[]"),
            "pos 0: 2 top_ids and 1 top_logits",
        ),
        (
            case("[1]", r#"{"pos": 0, "top_ids": [1], "top_logits": [1e999]}"#, "[]", "[]"),
            "number out of range",
        ),
    ];
    for (text, expected) in cases {
        let error = parse(&text, VOCAB).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = read(dir.path(), VOCAB).unwrap_err().to_string();
    assert!(error.contains("golden.json"), "{error}");
}

#[test]
fn the_cpu_engine_passes_both_goldens() {
    use crate::cpu::{CpuEngine, CpuOptions, Isa, KvDtype};
    use crate::model::{LoadOptions, load};

    for name in ["tiny_bf16", "tiny_mxfp4"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name);
        let weights = std::sync::Arc::new(load(&dir, &LoadOptions::default()).unwrap());
        let golden = read(&dir, weights.config.vocab_size).unwrap();
        for (threads, isa, kv, precision) in [
            (1, Isa::Auto, KvDtype::F32, Precision::F32),
            (2, Isa::Auto, KvDtype::F32, Precision::F32),
            (2, Isa::Portable, KvDtype::F32, Precision::F32),
            (2, Isa::Auto, KvDtype::Bf16, Precision::Bf16),
        ] {
            let options =
                CpuOptions { threads, isa, kv, max_step_tokens: 64, ..CpuOptions::default() };
            let mut engine = CpuEngine::new(std::sync::Arc::clone(&weights), options).unwrap();
            let mut text = Vec::new();
            let pass = run(&golden, &mut engine, precision, &mut text).unwrap();
            assert!(pass, "{name}, {options:?}:\n{}", String::from_utf8_lossy(&text));
        }
    }
}
