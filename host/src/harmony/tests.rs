use proptest::prelude::*;
use serde_json::Value;

use super::*;

mod malformed;

/// Conversations as openai-harmony 0.0.8 (PyPI) renders them, made once; the vocabulary it loaded
/// has the hash that package pins.
const ORACLE: &str = include_str!("../../../tests/data/harmony.json");

fn tokenizer() -> Tokenizer {
    Tokenizer::o200k_harmony()
}

fn system(effort: Effort) -> Message {
    SystemPrompt { effort, date: Some(String::from("2025-06-28")) }.message()
}

fn user(text: &str) -> Message {
    Message::new(Role::User, text)
}

fn tool_call() -> [Message; 4] {
    [
        user("Weather in Tokyo?"),
        Message::assistant(Channel::Analysis, "Need the tool."),
        Message {
            recipient: Some(String::from("functions.weather")),
            constrain: Some(String::from("json")),
            ..Message::assistant(Channel::Commentary, r#"{"city":"Tokyo"}"#)
        },
        Message {
            role: Role::Tool(String::from("functions.weather")),
            recipient: Some(String::from("assistant")),
            ..Message::assistant(Channel::Commentary, r#"{"sunny": true}"#)
        },
    ]
}

fn conversation(name: &str) -> Vec<Message> {
    let medium = [system(Effort::Medium)];
    let turns = [
        user("What is 2 + 2?"),
        Message::assistant(Channel::Analysis, "Simple arithmetic."),
        Message::assistant(Channel::Final, "4"),
        user("And 3 + 3?"),
    ];
    let answered = [
        Message::assistant(Channel::Analysis, "now answer"),
        Message::assistant(Channel::Final, "Sunny."),
        user("Thanks <|end|> 漢"),
    ];
    match name {
        "plain" => [&medium[..], &turns[..1]].concat(),
        "developer" => vec![
            system(Effort::High),
            Message::instructions("Answer in French."),
            user("What is 2 + 2?"),
        ],
        "turns" => [&medium[..], &turns].concat(),
        "pending" => [&medium[..], &tool_call()].concat(),
        "pending_then_final" => [&medium[..], &tool_call(), &answered].concat(),
        "low_undated" => {
            vec![SystemPrompt { effort: Effort::Low, date: None }.message(), user("hi")]
        }
        "preamble" => {
            let mut call = tool_call();
            call[2].content = String::from("{}");
            call[3].content = String::from("{}");
            let preamble = Message::assistant(Channel::Commentary, "Let me look.");
            let start = [system(Effort::Low), user("Weather?"), preamble];
            [&start[..], &call[1..]].concat()
        }
        "empty" => vec![system(Effort::Medium), user("")],
        other => panic!("no conversation is called {other}"),
    }
}

#[test]
fn conversations_render_as_the_oracle_does() {
    let oracle: Value = serde_json::from_str(ORACLE).unwrap();
    let cases = oracle.as_array().unwrap();
    assert_eq!(cases.len(), 8);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let expected: Vec<u32> = serde_json::from_value(case["tokens"].clone()).unwrap();
        let ids = render(&conversation(name), &tokenizer()).unwrap();
        assert_eq!(tokenizer().decode(&ids).unwrap(), case["text"].as_str().unwrap(), "{name}");
        assert_eq!(ids, expected, "{name}");
    }
}

#[test]
fn dates_follow_the_calendar() {
    for (days, expected) in [
        (0, "1970-01-01"),
        (58, "1970-02-28"),
        (59, "1970-03-01"),
        (789, "1972-02-29"),
        (11016, "2000-02-29"),
        (11017, "2000-03-01"),
        (20267, "2025-06-28"),
        (20453, "2025-12-31"),
        (20454, "2026-01-01"),
    ] {
        assert_eq!(date(days), expected);
    }
}

/// Ids of a text in which the names of special tokens are those tokens.
fn ids(text: &str) -> Vec<u32> {
    let specials = [
        ("<|start|>", START),
        ("<|channel|>", CHANNEL),
        ("<|message|>", MESSAGE),
        ("<|constrain|>", CONSTRAIN),
        ("<|end|>", END),
        ("<|return|>", RETURN),
        ("<|call|>", CALL),
    ];
    let mut ids = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let next = specials
            .iter()
            .filter_map(|&(name, id)| rest.find(name).map(|at| (at, name, id)))
            .min_by_key(|&(at, ..)| at);
        let (text, special, tail) = match next {
            Some((at, name, id)) => (&rest[..at], Some(id), &rest[at + name.len()..]),
            None => (rest, None, ""),
        };
        ids.extend(tokenizer().encode(text).unwrap());
        ids.extend(special);
        rest = tail;
    }
    ids
}

fn parse_ids(ids: &[u32]) -> (Vec<Delta>, Vec<Message>) {
    let mut parser = Parser::default();
    let mut deltas = Vec::new();
    for &id in ids {
        deltas.extend(parser.push(id, &tokenizer()).unwrap());
    }
    let (rest, messages) = parser.finish();
    deltas.extend(rest);
    (deltas, messages)
}

fn parsed(text: &str) -> Vec<Message> {
    parse_ids(&ids(text)).1
}

#[test]
fn an_answer_is_its_messages() {
    let answer = "<|channel|>analysis<|message|>Thinking.<|end|><|start|>assistant<|channel|>final\
                  <|message|>Four.<|return|>";
    let thought = Message::assistant(Channel::Analysis, "Thinking.");
    let four = Message::assistant(Channel::Final, "Four.");
    assert_eq!(parsed(answer), [thought.clone(), four.clone()]);
    // Where the answer is cut, what there is counts.
    assert_eq!(parsed("<|channel|>analysis<|message|>Thinking."), [thought]);
    assert_eq!(parsed("<|channel|>final<|message|>Four.<|return|>"), [four]);
}

#[test]
fn a_character_split_over_tokens_comes_whole() {
    let (deltas, _) = parse_ids(&ids("<|channel|>final<|message|>🦀🦀<|return|>"));
    let texts: String = deltas.iter().map(|delta| delta.text.as_str()).collect();
    assert_eq!(texts, "🦀🦀");
    assert!(deltas.iter().all(|delta| !delta.text.contains('\u{fffd}')));
}

#[test]
fn efforts_are_three_words() {
    for effort in [Effort::Low, Effort::Medium, Effort::High] {
        assert_eq!(effort.name().parse(), Ok(effort));
        let text = SystemPrompt { effort, date: None }.message().content;
        assert!(text.contains(&format!("\nReasoning: {}\n", effort.name())), "{text}");
    }
    let error = "xhigh".parse::<Effort>().unwrap_err().to_string();
    assert_eq!(error, "effort is \"xhigh\", expected low, medium or high");
}

#[test]
fn a_cut_answer_is_continued_token_by_token() {
    let history = [system(Effort::Low), user("What is 2 + 2?")];
    let whole =
        ids("<|channel|>analysis<|message|>Sum 🦀.<|end|><|start|>assistant<|channel|>final\
                     <|message|>It is 4.<|return|>");
    let expected = parse_ids(&whole);
    let prompt = render(&history, &tokenizer()).unwrap();
    for cut in 0..whole.len() {
        let mut parser = Parser::default();
        let mut deltas = Vec::new();
        for &id in &whole[..cut] {
            deltas.extend(parser.push(id, &tokenizer()).unwrap());
        }
        assert!(!parser.is_complete(), "{cut}");
        let ids = render_continuation(&history, &whole[..cut], &tokenizer()).unwrap();
        assert_eq!(ids, [&prompt, &whole[..cut]].concat());
        for &id in &whole[cut..] {
            deltas.extend(parser.push(id, &tokenizer()).unwrap());
        }
        assert!(parser.is_complete());
        let (rest, messages) = parser.finish();
        deltas.extend(rest);
        assert_eq!((deltas, messages), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Text survives whatever the special tokens around it say, and deltas add up to messages.
    #[test]
    fn any_sequence_keeps_its_text(parts in prop::collection::vec((0usize..10, "[a-z]{1,9}"), 0..20)) {
        let specials = [START, CHANNEL, MESSAGE, CONSTRAIN, END, RETURN, CALL];
        let mut sequence = Vec::new();
        for (special, word) in &parts {
            sequence.extend(specials.get(*special));
            sequence.extend(tokenizer().encode(word).unwrap());
        }
        let (deltas, messages) = parse_ids(&sequence);
        let from_deltas: String = deltas.iter().map(|delta| delta.text.as_str()).collect();
        let from_messages: String = messages.iter().map(|message| message.content.as_str()).collect();
        prop_assert_eq!(&from_deltas, &from_messages);
        // Words right after a message token are content, so they must be there.
        let mut follows_message = false;
        for (special, word) in &parts {
            match specials.get(*special) {
                Some(&MESSAGE) => follows_message = true,
                Some(_) => follows_message = false,
                None => {}
            }
            if follows_message {
                prop_assert!(from_messages.contains(word.as_str()), "{word} is lost");
            }
        }
    }

    /// What is rendered is read back.
    #[test]
    fn rendered_answers_are_read_back(thought in ".{0,20}", answer in ".{1,20}") {
        let messages =
            [Message::assistant(Channel::Analysis, thought), Message::assistant(Channel::Commentary, answer)];
        let ids = render(&messages, &tokenizer()).unwrap();
        let body = &ids[1 + tokenizer().encode("assistant").unwrap().len()..];
        let (_, read) = parse_ids(&body[..body.len() - 2]);
        prop_assert_eq!(read, messages);
    }
}
