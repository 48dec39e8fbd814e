//! What the program does with an engine: batches of requests, files of prompts, conversations.

pub mod crosscheck;
pub mod journal;
pub mod prompts;
pub mod verify;

/// The seed of one request of a job: requests of a job differ, whatever their prompts.
pub fn request_seed(seed: u64, request: u64) -> u64 {
    // One step of SplitMix64 (Steele, Lea, Flood 2014): neighbours get unrelated seeds.
    let mut z = seed ^ request.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
