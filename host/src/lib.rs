//! Inference engine for gpt-oss: model files, tokenizer, CPU engine, GPU runtime, modes.

pub mod bench;
pub mod cpu;
pub mod device_name;
pub mod engine;
pub mod export;
pub mod files;
pub mod golden;
pub mod gpu;
pub mod gpu_engine;
pub mod harmony;
pub mod kernels;
pub mod kv_budget;
pub mod model;
pub mod modes;
pub mod pages;
pub mod rope;
pub mod sampling;
pub mod scheduler;
pub mod stop;
pub mod synth;
pub mod terminal;
pub mod tokenizer;
pub mod worker;
