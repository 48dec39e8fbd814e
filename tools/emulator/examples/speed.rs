//! Prints the emulator's speed as JSON: `cargo run --release -p gptoss-emulator --example speed`.

fn main() -> Result<(), emulator::bench::BenchError> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    println!("{}", emulator::bench::measure(threads)?.to_json());
    Ok(())
}
