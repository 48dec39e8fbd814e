//! The reference systems' `.bin`: a header of 60 bytes, then every tensor in f32, tightly packed.
//!
//! It has neither magic nor version nor checksum, so everything that can be checked is: each field
//! of the header, and the file's size against the one that follows from them.

use std::path::Path;
use std::sync::Arc;

use shared::model::{ModelConfig, Rope};

use super::config::alternating;
use super::error::ModelError;
use super::shards;
use super::snapshot::split_rows;
use super::weights::{Bytes, Dtype, ExpertWeights, Experts, Layer, Linear, Matrix, Store, Weights};

/// Which of the three variants of equal size a `.bin` is; the file does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum BinLayout {
    /// As the reference runtimes read it, and as export writes it.
    #[default]
    Ups,
    /// From the exporter of the gfx1151 port: router [hidden, experts], second expert product
    /// [experts, intermediate, hidden].
    Lhl,
    /// Embedding and unembedding exchanged, as the MI250 exporter does at random.
    Swapped,
}

/// Bytes before the first tensor.
pub const HEADER_BYTES: usize = 60;

/// Fixed by the format rather than stored in it.
pub(crate) const RMS_NORM_EPS: f32 = 1e-5;
pub(crate) const BETA_FAST: f32 = 32.0;
pub(crate) const BETA_SLOW: f32 = 1.0;

/// The tensors of the file, in its order; each holds all layers, outermost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Embedding,
    Unembedding,
    AttnNorm,
    MlpNorm,
    Norm,
    Qkv,
    QkvBias,
    O,
    OBias,
    Sinks,
    Router,
    RouterBias,
    GateUp,
    GateUpBias,
    Down,
    DownBias,
}

impl Section {
    pub const ALL: [Section; 16] = [
        Section::Embedding,
        Section::Unembedding,
        Section::AttnNorm,
        Section::MlpNorm,
        Section::Norm,
        Section::Qkv,
        Section::QkvBias,
        Section::O,
        Section::OBias,
        Section::Sinks,
        Section::Router,
        Section::RouterBias,
        Section::GateUp,
        Section::GateUpBias,
        Section::Down,
        Section::DownBias,
    ];

    /// How often the tensor is there: once, or once per layer.
    pub fn count(self, config: &ModelConfig) -> usize {
        match self {
            Section::Embedding | Section::Unembedding | Section::Norm => 1,
            _ => config.num_hidden_layers,
        }
    }

    /// Elements of one layer's part.
    pub fn elements(self, config: &ModelConfig) -> usize {
        let ModelConfig { hidden_size: h, intermediate_size: i, num_local_experts: e, .. } =
            *config;
        let qkv = config.q_dim() + 2 * config.kv_dim();
        match self {
            Section::Embedding | Section::Unembedding => config.vocab_size * h,
            Section::AttnNorm | Section::MlpNorm | Section::Norm | Section::OBias => h,
            Section::Qkv => qkv * h,
            Section::QkvBias => qkv,
            Section::O => h * config.q_dim(),
            Section::Sinks => config.num_attention_heads,
            Section::Router => e * h,
            Section::RouterBias => e,
            Section::GateUp => e * 2 * i * h,
            Section::GateUpBias => e * 2 * i,
            Section::Down => e * h * i,
            Section::DownBias => e * h,
        }
    }

    /// The name messages use.
    pub fn name(self) -> &'static str {
        match self {
            Section::Embedding => "embedding",
            Section::Unembedding => "unembedding",
            Section::AttnNorm => "attention norm",
            Section::MlpNorm => "mlp norm",
            Section::Norm => "norm",
            Section::Qkv => "qkv",
            Section::QkvBias => "qkv bias",
            Section::O => "o",
            Section::OBias => "o bias",
            Section::Sinks => "sinks",
            Section::Router => "router",
            Section::RouterBias => "router bias",
            Section::GateUp => "mlp1",
            Section::GateUpBias => "mlp1 bias",
            Section::Down => "mlp2",
            Section::DownBias => "mlp2 bias",
        }
    }
}

/// The size in bytes of the `.bin` of a checked `config`.
pub fn file_bytes(config: &ModelConfig) -> u64 {
    let elements: u64 =
        Section::ALL.iter().map(|s| (s.count(config) * s.elements(config)) as u64).sum();
    HEADER_BYTES as u64 + 4 * elements
}

/// Field `index` of the header.
fn field(header: &[u8; HEADER_BYTES], index: usize) -> [u8; 4] {
    header.as_chunks().0[index]
}

/// The configuration a header describes, checked; the error is one line.
pub fn parse_header(header: &[u8; HEADER_BYTES]) -> Result<ModelConfig, String> {
    let int = |index| i32::from_le_bytes(field(header, index));
    let float = |index| f32::from_le_bytes(field(header, index));
    let size = |name: &str, index| {
        usize::try_from(int(index)).ok().filter(|&v| v > 0).ok_or_else(|| {
            format!("header field {name} is {}, expected a positive size", int(index))
        })
    };
    // An exporter of the past wrote these two integers as floats; as integers they are absurd.
    let is_float = |index: usize| {
        let value = float(index);
        value.fract() == 0.0 && (1.0..=16_777_216.0).contains(&value) && int(index) > 1 << 28
    };
    if is_float(10) && is_float(13) {
        return Err(format!(
            "obsolete header: initial_context_length ({}) and sliding_window ({}) are stored as \
             floats, expected integers; export the model again",
            float(10),
            float(13)
        ));
    }
    let num_hidden_layers = size("n_layers", 5)?;
    let theta = float(11);
    if !(theta.is_finite() && theta > 1.0) {
        let hint = match int(11) {
            v @ 2..=100_000_000 => format!(" (the field holds the integer {v})"),
            _ => String::new(),
        };
        return Err(format!("header field rope_theta is {theta}{hint}, expected a float above 1"));
    }
    let config = ModelConfig {
        vocab_size: size("vocab_size", 0)?,
        hidden_size: size("hidden_dim", 1)?,
        num_local_experts: size("n_experts", 2)?,
        num_experts_per_tok: size("experts_per_token", 3)?,
        intermediate_size: size("intermediate_dim", 4)?,
        num_hidden_layers,
        head_dim: size("head_dim", 6)?,
        num_attention_heads: size("n_attn_heads", 7)?,
        num_key_value_heads: size("n_kv_heads", 8)?,
        max_position_embeddings: size("seq_len", 9)?,
        sliding_window: size("sliding_window", 13)?,
        windowed_layers: alternating(num_hidden_layers),
        rope: Rope {
            theta,
            factor: float(12),
            beta_fast: BETA_FAST,
            beta_slow: BETA_SLOW,
            original_context: size("initial_context_length", 10)?,
            truncate: false,
            attention_factor: None,
        },
        rms_norm_eps: RMS_NORM_EPS,
        swiglu_limit: float(14),
    };
    config.check().map_err(|e| format!("header: {e}"))?;
    Ok(config)
}

/// The header of a file of `config`; sizes above `i32::MAX` are refused by name.
pub fn header(config: &ModelConfig) -> Result<[u8; HEADER_BYTES], String> {
    let int = |name: &str, value: usize| {
        i32::try_from(value)
            .map(i32::to_le_bytes)
            .map_err(|_| format!("{name} is {value}, the header holds at most {}", i32::MAX))
    };
    let fields = [
        int("vocab_size", config.vocab_size)?,
        int("hidden_size", config.hidden_size)?,
        int("num_local_experts", config.num_local_experts)?,
        int("num_experts_per_tok", config.num_experts_per_tok)?,
        int("intermediate_size", config.intermediate_size)?,
        int("num_hidden_layers", config.num_hidden_layers)?,
        int("head_dim", config.head_dim)?,
        int("num_attention_heads", config.num_attention_heads)?,
        int("num_key_value_heads", config.num_key_value_heads)?,
        int("max_position_embeddings", config.max_position_embeddings)?,
        int("original context", config.rope.original_context)?,
        config.rope.theta.to_le_bytes(),
        config.rope.factor.to_le_bytes(),
        int("sliding_window", config.sliding_window)?,
        config.swiglu_limit.to_le_bytes(),
    ];
    let mut header = [0; HEADER_BYTES];
    header.as_chunks_mut().0.copy_from_slice(&fields);
    Ok(header)
}

/// Checks header and size of the file in `bytes`; the error is one line.
pub fn check(bytes: &[u8]) -> Result<ModelConfig, String> {
    let Some((header, _)) = bytes.split_first_chunk() else {
        return Err(format!(
            "the file is {} bytes, too short for the header of {HEADER_BYTES}",
            bytes.len()
        ));
    };
    let config = parse_header(header)?;
    let (got, expected) = (bytes.len() as u64, file_bytes(&config));
    if got != expected {
        let kind = if got < expected { "truncated" } else { "oversized" };
        return Err(format!("the file is {got} bytes, its header says {expected}: {kind}"));
    }
    Ok(config)
}

/// Maps the `.bin` at `path`; only vectors (and, with [`BinLayout::Lhl`], routers) are read.
pub(crate) fn load(path: &Path, layout: BinLayout) -> Result<Weights, ModelError> {
    let store = shards::map(path)?;
    let config = check(&store).map_err(|reason| ModelError::file(path, reason))?;
    let reader = Reader { path, store, config: &config, layout };
    reader.read()
}

struct Reader<'a> {
    path: &'a Path,
    store: Arc<Store>,
    config: &'a ModelConfig,
    layout: BinLayout,
}

impl Reader<'_> {
    /// The bytes of `section` in `layer` (0 where there is only one).
    fn bytes(&self, section: Section, layer: usize) -> Result<Bytes, ModelError> {
        let before: usize = Section::ALL
            .iter()
            .take_while(|&&s| s != section)
            .map(|s| s.count(self.config) * s.elements(self.config))
            .sum();
        let elements = section.elements(self.config);
        let start = HEADER_BYTES + 4 * (before + layer * elements);
        Bytes::new(Arc::clone(&self.store), start..start + 4 * elements)
            .ok_or_else(|| ModelError::file(self.path, format!("{} is cut off", section.name())))
    }

    fn matrix(
        &self,
        section: Section,
        layer: usize,
        rows: usize,
        cols: usize,
    ) -> Result<Matrix, ModelError> {
        Ok(Matrix { dtype: Dtype::F32, rows, cols, data: self.bytes(section, layer)? })
    }

    fn vector(&self, section: Section, layer: usize) -> Result<Vec<f32>, ModelError> {
        let values = shards::to_f32(Dtype::F32, &self.bytes(section, layer)?);
        match shards::non_finite(&values) {
            None => Ok(values),
            Some((index, value)) => Err(ModelError::NonFinite {
                path: self.path.to_owned(),
                name: format!("{} of layer {layer}", section.name()),
                index,
                value,
            }),
        }
    }

    fn router(&self, layer: usize) -> Result<Matrix, ModelError> {
        let (rows, cols) = (self.config.num_local_experts, self.config.hidden_size);
        match self.layout {
            BinLayout::Ups | BinLayout::Swapped => self.matrix(Section::Router, layer, rows, cols),
            BinLayout::Lhl => {
                let stored = self.bytes(Section::Router, layer)?;
                let data = transpose(stored.as_chunks().0, cols, rows);
                let range = 0..data.len();
                let data = Bytes::new(Arc::new(Store::Owned(data)), range)
                    .ok_or_else(|| ModelError::file(self.path, "router is cut off"))?;
                Ok(Matrix { dtype: Dtype::F32, rows, cols, data })
            }
        }
    }

    fn layer(&self, layer: usize) -> Result<Layer, ModelError> {
        let c = self.config;
        let (h, q, kv) = (c.hidden_size, c.q_dim(), c.kv_dim());
        let fused = Linear {
            weight: self.matrix(Section::Qkv, layer, q + 2 * kv, h)?,
            bias: self.vector(Section::QkvBias, layer)?,
        };
        let [q_map, k, v] = split_rows(&fused, [q, kv, kv]);
        let down = self.bytes(Section::Down, layer)?;
        Ok(Layer {
            attn_norm: self.vector(Section::AttnNorm, layer)?,
            q: q_map,
            k,
            v,
            sinks: self.vector(Section::Sinks, layer)?,
            o: Linear {
                weight: self.matrix(Section::O, layer, h, q)?,
                bias: self.vector(Section::OBias, layer)?,
            },
            mlp_norm: self.vector(Section::MlpNorm, layer)?,
            router: Linear {
                weight: self.router(layer)?,
                bias: self.vector(Section::RouterBias, layer)?,
            },
            gate_up: Experts {
                count: c.num_local_experts,
                rows: 2 * c.intermediate_size,
                cols: h,
                weights: ExpertWeights::OutIn(Dtype::F32, self.bytes(Section::GateUp, layer)?),
                bias: self.vector(Section::GateUpBias, layer)?,
            },
            down: Experts {
                count: c.num_local_experts,
                rows: h,
                cols: c.intermediate_size,
                weights: match self.layout {
                    BinLayout::Lhl => ExpertWeights::InOut(Dtype::F32, down),
                    BinLayout::Ups | BinLayout::Swapped => ExpertWeights::OutIn(Dtype::F32, down),
                },
                bias: self.vector(Section::DownBias, layer)?,
            },
        })
    }

    fn read(&self) -> Result<Weights, ModelError> {
        let c = self.config;
        let mut tables = [Section::Embedding, Section::Unembedding];
        if self.layout == BinLayout::Swapped {
            tables.reverse();
        }
        let [embedding, unembedding] = tables;
        Ok(Weights {
            config: c.clone(),
            embedding: self.matrix(embedding, 0, c.vocab_size, c.hidden_size)?,
            layers: (0..c.num_hidden_layers).map(|l| self.layer(l)).collect::<Result<_, _>>()?,
            norm: self.vector(Section::Norm, 0)?,
            unembedding: self.matrix(unembedding, 0, c.vocab_size, c.hidden_size)?,
        })
    }
}

/// The transpose of `[rows, cols]` elements of 4 bytes.
fn transpose(stored: &[[u8; 4]], rows: usize, cols: usize) -> Vec<u8> {
    (0..cols).flat_map(|c| (0..rows).flat_map(move |r| stored[r * cols + c])).collect()
}
