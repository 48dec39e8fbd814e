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

/// FNV-1a with 64 bits: tells things apart where nobody means harm.
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Adds a piece, and where it ends.
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().copied().chain((bytes.len() as u64).to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub fn value(&self) -> u64 {
        self.0
    }
}
