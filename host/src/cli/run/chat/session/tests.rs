use super::*;
use gptoss::harmony::Channel;
use gptoss::tokenizer::{CHANNEL, END, MESSAGE, RETURN, START};

const VOCABULARY: usize = 201_088;

fn tokenizer() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::o200k_harmony())
}

fn session(positions: usize) -> Session {
    let limits = Limits { positions, vocabulary: VOCABULARY };
    let sampling = Sampling { temperature: 1.0, seed: 7, ..Sampling::GREEDY };
    let system = SystemPrompt { date: Some("2025-08-05".to_owned()), effort: Effort::Medium };
    Session::new(tokenizer(), limits, sampling, Vec::new(), system)
}

/// `<|channel|>analysis ... <|channel|>final ...<|return|>`.
fn answer(thought: &str, text: &str) -> Vec<u32> {
    let tokenizer = tokenizer();
    let words = |text: &str| tokenizer.encode(text).unwrap();
    let mut ids = [vec![CHANNEL], words("analysis"), vec![MESSAGE], words(thought)].concat();
    ids.extend([END, START]);
    ids.extend([words("assistant"), vec![CHANNEL], words("final"), vec![MESSAGE]].concat());
    ids.extend([words(text), vec![RETURN]].concat());
    ids
}

/// Takes an answer of these tokens.
fn take(session: &mut Session, asked: Asked, tokens: &[u32], is_cut: bool) -> String {
    let mut reading = asked.reading;
    let mut text = String::new();
    for &token in tokens {
        reading.push(token).unwrap().iter().for_each(|delta| text += &delta.text);
    }
    session.take(reading, is_cut).unwrap().iter().for_each(|delta| text += &delta.text);
    text
}

fn turn(session: &mut Session, text: &str, said: &str) {
    let asked = session.say(text).unwrap();
    take(session, asked, &answer("Hm.", said), false);
}

/// What the whole conversation renders to.
fn rendered(history: &[Message]) -> Vec<u32> {
    let system = SystemPrompt { date: Some("2025-08-05".to_owned()), effort: Effort::Medium };
    let all = [&[system.message()], history].concat();
    harmony::render(&all, &tokenizer()).unwrap()
}

#[test]
fn a_prompt_is_the_rendered_conversation_and_begins_with_the_prefix_before_it() {
    let mut session = session(4096);
    let user = |text: &str| Message::new(Role::User, text);
    let prefix = session.prefix().unwrap();
    let asked = session.say("What is 2 + 2?").unwrap();
    assert_eq!(asked.prompt, rendered(&[user("What is 2 + 2?")]));
    assert!(asked.prompt.starts_with(&prefix));
    assert_eq!(asked.max_tokens, 4096 - asked.prompt.len());
    let shown = take(&mut session, asked, &answer("Sum.", "Four."), false);
    assert_eq!(shown, "Sum.Four.");
    let prefix = session.prefix().unwrap();
    let asked = session.say("And 3?").unwrap();
    // Reasoning is left out once there is an answer.
    let four = Message::assistant(Channel::Final, "Four.");
    assert_eq!(asked.prompt, rendered(&[user("What is 2 + 2?"), four, user("And 3?")]));
    assert!(asked.prompt.starts_with(&prefix));
}

#[test]
fn a_cut_answer_goes_on_token_by_token_with_the_same_seed() {
    let whole = answer("Sum.", "It is four, and 🦀.");
    for cut in 0..whole.len() {
        let mut session = session(4096);
        let asked = session.say("What is 2 + 2?").unwrap();
        let (prompt, sampling) = (asked.prompt.clone(), asked.sampling);
        let mut shown = take(&mut session, asked, &whole[..cut], true);
        let more = session.more().unwrap();
        assert_eq!(more.prompt, [&prompt, &whole[..cut]].concat());
        assert_eq!(more.sampling, sampling);
        shown += &take(&mut session, more, &whole[cut..], false);
        assert_eq!(shown, "Sum.It is four, and 🦀.");
        assert!(matches!(session.more().unwrap_err(), Refusal::NothingCut));
        let next = session.say("And 3?").unwrap().prompt;
        let four = Message::assistant(Channel::Final, "It is four, and 🦀.");
        let said =
            [Message::new(Role::User, "What is 2 + 2?"), four, Message::new(Role::User, "And 3?")];
        assert_eq!(next, rendered(&said));
    }
}

#[test]
fn what_cannot_be_answered_was_not_said() {
    let mut session = session(4096);
    turn(&mut session, "One", "1");
    let before = session.prefix().unwrap();
    session.say("Two").unwrap();
    session.take_back().unwrap();
    assert_eq!(session.prefix().unwrap(), before);
    // A continuation that fails leaves the cut answer where it was.
    let asked = session.say("Three").unwrap();
    take(&mut session, asked, &answer("Hm.", "Long")[..9], true);
    let cut = session.prefix().unwrap();
    let first = session.more().unwrap().prompt;
    session.take_back().unwrap();
    assert_eq!(session.prefix().unwrap(), cut);
    assert_eq!(session.more().unwrap().prompt, first);
    assert!(session.take_back().is_ok() && session.take_back().is_ok());
}

#[test]
fn seeds_differ_by_answer_and_repeat_with_the_conversation() {
    let seeds = || {
        let mut session = session(4096);
        let one = session.say("One").unwrap().sampling.seed;
        let two = session.say("Two").unwrap().sampling.seed;
        [one, two]
    };
    let [one, two] = seeds();
    assert_ne!(one, two);
    assert_eq!(seeds(), [one, two]);
}

#[test]
fn a_message_that_does_not_fit_leaves_the_conversation_as_it_was() {
    let mut session = session(120);
    turn(&mut session, "One", "1");
    let before = session.prefix().unwrap();
    let Err(Refusal::TooLong { tokens, limit: 120 }) = session.say(&"word ".repeat(200)) else {
        panic!("expected a refusal")
    };
    assert!(tokens > 200, "{tokens}");
    assert_eq!(session.prefix().unwrap(), before);
    assert!(session.say("Two").is_ok());
    let mut small = session_of_vocabulary(1000);
    assert!(matches!(small.say("漢字"), Err(Refusal::Vocabulary { vocabulary: 1000, .. })));
}

fn session_of_vocabulary(vocabulary: usize) -> Session {
    let mut session = session(4096);
    session.limits.vocabulary = vocabulary;
    session
}

#[test]
fn the_oldest_turns_are_forgotten_when_there_is_no_room() {
    let mut session = session(400);
    let mut forgotten = Vec::new();
    for index in 0..40 {
        let text = format!("Number {index} and some more words");
        let asked = session.say(&text).unwrap();
        assert!(asked.prompt.len() + 400 / RESERVE <= 400, "{} tokens", asked.prompt.len());
        forgotten.push(asked.forgotten);
        take(&mut session, asked, &answer("Hm.", "An answer of a few words."), false);
        assert_eq!(session.messages[0].role, Role::User);
    }
    let times = forgotten.iter().filter(|&&turns| turns > 0).count();
    // The frame has about 70 tokens and a turn 25: some five are forgotten at a time.
    assert!((3..10).contains(&times), "{forgotten:?}");
}

#[test]
fn a_cut_answer_that_fills_the_context_makes_room_or_says_so() {
    let mut session = session(200);
    turn(&mut session, "One two three four five six seven eight nine ten", "1");
    let asked = session.say("Two").unwrap();
    let long = answer("Hm.", &"word ".repeat(300));
    let room = asked.max_tokens;
    take(&mut session, asked, &long[..room], true);
    let more = session.more().unwrap();
    assert_eq!((more.forgotten, more.prompt.len() + more.max_tokens), (1, 200));
    let room = room + more.max_tokens;
    let done = room - more.max_tokens;
    take(&mut session, more, &long[done..room], true);
    assert!(matches!(session.more(), Err(Refusal::TooLong { .. })));
    assert!(session.say("Three").is_ok());
}

#[test]
fn effort_and_instructions_are_in_the_next_prompt() {
    let mut session = session(4096);
    session.set_effort(Effort::High);
    session.instruct("Be brief.");
    let prompt = session.say("One").unwrap().prompt;
    let text = tokenizer().decode(&prompt).unwrap();
    assert!(text.contains("Reasoning: high") && text.contains("# Instructions\n\nBe brief."));
    session.reset();
    assert!(tokenizer().decode(&session.prefix().unwrap()).unwrap().ends_with("Be brief.<|end|>"));
}
