use proptest::prelude::*;

use super::*;

const WINDOW: usize = 128;

fn pages(full: usize, windowed: usize) -> Pages {
    Pages::new(Geometry { full, windowed, window: WINDOW }, true)
}

fn text(len: usize, seed: u32) -> Vec<u32> {
    (0..len as u32).map(|i| i.wrapping_mul(7).wrapping_add(seed)).collect()
}

/// Feeds what a sequence lacks of `tokens`, `step` at a time.
fn feed(pages: &mut Pages, seq: SeqId, tokens: &[u32], step: usize) {
    for piece in tokens[pages.table(seq).len()..].chunks(step) {
        pages.extend(seq, piece.len()).unwrap();
        pages.confirm(seq, piece);
    }
}

#[test]
fn windowed_pages_return_behind_the_window() {
    let mut pages = Pages::new(Geometry { full: 16, windowed: 4, window: WINDOW }, false);
    let seq = pages.open(&[]);
    for position in 0..1024 {
        pages.extend(seq, 1).unwrap();
        let table = pages.table(seq);
        assert_eq!((table.len(), table.full.len()), (position + 1, position / PAGE + 1));
        let first = (position + 1).saturating_sub(WINDOW) / PAGE;
        let mut live = table.windowed[first..].to_vec();
        live.sort_unstable();
        live.dedup();
        assert_eq!(live.len(), position / PAGE + 1 - first, "pages are shared");
        pages.confirm(seq, &[7]);
    }
    assert_eq!(pages.free(), [0, 2]);
    pages.close(seq);
    assert_eq!(pages.free(), [16, 4]);
}

#[test]
fn what_does_not_fit_takes_nothing() {
    let mut pages = pages(3, 3);
    let (a, b) = (pages.open(&[]), pages.open(&[]));
    pages.extend(a, 128).unwrap();
    let refused = pages.extend(b, 65).unwrap_err();
    assert_eq!(refused, OutOfPages { needed: 2, free: 1, class: "full" });
    assert_eq!((pages.free(), pages.room(b)), ([1, 1], 64));
    pages.extend(b, 64).unwrap();
    assert_eq!(pages.table(b).classes()[0], [2]);
}

#[test]
fn a_text_that_begins_alike_takes_up_whole_blocks() {
    let mut pages = pages(16, 16);
    let first = text(200, 1);
    let a = pages.open(&first);
    assert_eq!(pages.table(a).len(), 0);
    feed(&mut pages, a, &first, 50);
    // Three whole blocks; the last token is always computed.
    for (len, shared) in [(200, 192), (193, 192), (192, 128), (129, 128), (128, 64), (64, 0)] {
        let seq = pages.open(&first[..len]);
        assert_eq!(pages.table(seq).len(), shared, "{len}");
        assert_eq!(pages.table(seq).full, pages.table(a).full[..shared / PAGE], "{len}");
        pages.close(seq);
    }
    let mut other = first.clone();
    other[70] += 1;
    let seq = pages.open(&other);
    assert_eq!(pages.table(seq).len(), 64, "the second block differs");
    pages.close(seq);
    pages.close(a);
    assert_eq!(pages.in_use(), [0, 0]);
    let again = pages.open(&first);
    assert_eq!(pages.table(again).len(), 192, "after everyone left");
}

#[test]
fn shared_pages_are_held_until_the_last_has_left() {
    let mut pages = pages(6, 6);
    let both = text(130, 3);
    let a = pages.open(&both);
    feed(&mut pages, a, &both, 130);
    let b = pages.open(&both);
    feed(&mut pages, b, &both, 1);
    assert_eq!(pages.in_use()[0], 4, "two shared, one of each");
    pages.close(a);
    assert_eq!(pages.in_use()[0], 3);
    // Everything else is taken; what b holds stays.
    let c = pages.open(&text(192, 9));
    pages.extend(c, 192).unwrap();
    assert_eq!(pages.free()[0], 0);
    let [b, c] = [b, c].map(|seq| pages.table(seq).full.clone());
    assert!(b.iter().all(|page| !c.contains(page)), "{b:?} {c:?}");
}

/// Where the window's pages are gone, a text is taken up at an earlier block, or not at all.
#[test]
fn without_its_window_a_prefix_is_not_taken_up() {
    let mut pages = pages(32, 6);
    let long = text(1024, 5);
    let a = pages.open(&long[..300]);
    feed(&mut pages, a, &long, 64);
    pages.close(a);
    // The window before position 960 is there, and so is that of the prompt's end.
    let open = |pages: &mut Pages, len: usize| {
        let seq = pages.open(&long[..len]);
        let shared = pages.table(seq).len();
        let live = pages.table(seq).windowed[pages.table(seq).first_windowed..].to_vec();
        assert!(live.iter().all(|&page| live.iter().filter(|&&p| p == page).count() == 1));
        pages.close(seq);
        shared
    };
    assert_eq!(open(&mut pages, 1000), 960);
    assert_eq!(open(&mut pages, 300), 256, "the prompt's window outlives what came after it");
    assert_eq!(open(&mut pages, 700), 256);
    // Others take every windowed page.
    let b = pages.open(&text(6 * PAGE, 99));
    pages.extend(b, 6 * PAGE).unwrap();
    assert_eq!(open(&mut pages, 300), 0);
}

#[test]
fn tokens_that_are_not_confirmed_are_not_shared() {
    let mut pages = pages(8, 8);
    let tokens = text(130, 1);
    let a = pages.open(&tokens);
    pages.extend(a, 130).unwrap();
    let b = pages.open(&tokens);
    assert_eq!(pages.table(b).len(), 0);
    pages.close(a);
    let c = pages.open(&tokens);
    assert_eq!(pages.table(c).len(), 0, "what was never computed is not there");
}

proptest! {
    /// Random sequences in a small pool against a model that knows who wrote what: a page that a
    /// sequence sees holds the tokens of its own text, whoever wrote it, and never changes while it
    /// is held.
    #[test]
    fn every_page_seen_holds_the_own_text(
        steps in prop::collection::vec((0usize..4, 0usize..6, 1usize..150), 1..120),
        full in 8usize..30,
        windowed in 4usize..16,
    ) {
        let mut pages = pages(full, windowed);
        // What each page holds, position by position.
        let mut held = [vec![[u32::MAX; PAGE]; full], vec![[u32::MAX; PAGE]; windowed]];
        let mut open: Vec<Option<(SeqId, Vec<u32>)>> = vec![None; 6];
        for (action, who, count) in steps {
            match (action, open[who].take()) {
                (0, Some((seq, _))) => pages.close(seq),
                (_, None) => {
                    // Texts that begin alike and part at different places.
                    let mut tokens = text(2000, 0);
                    tokens[64 * (who % 3) + count % 64..].iter_mut().for_each(|t| *t += who as u32);
                    open[who] = Some((pages.open(&tokens[..count + 64]), tokens));
                }
                (_, Some((seq, tokens))) => {
                    let start = pages.table(seq).len();
                    let count = count.min(pages.room(seq)).min(tokens.len() - start);
                    pages.extend(seq, count).unwrap();
                    let table = pages.table(seq).clone();
                    for position in start..start + count {
                        for (class, page) in table.classes().into_iter().enumerate() {
                            held[class][page[position / PAGE] as usize][position % PAGE] =
                                tokens[position];
                        }
                    }
                    // The step that is laid out now reads these.
                    let first = (start + 1).saturating_sub(WINDOW);
                    for (class, from) in [(0, 0), (1, first)] {
                        for position in from..start + count {
                            let page = table.classes()[class][position / PAGE] as usize;
                            prop_assert_eq!(held[class][page][position % PAGE], tokens[position]);
                        }
                    }
                    pages.confirm(seq, &tokens[start..start + count]);
                    open[who] = Some((seq, tokens));
                }
            }
        }
        open.into_iter().flatten().for_each(|(seq, _)| pages.close(seq));
        prop_assert_eq!(pages.free(), [full, windowed]);
    }
}
