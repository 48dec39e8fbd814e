//! The hyper-parameters of a gpt-oss model and the shapes that follow from them.

/// Hyper-parameters under their Hugging Face names.
///
/// A value of this type has not been checked; [`ModelConfig::check`] says whether it can be run.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Rows of the embedding and of the unembedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Transformer blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; each serves `num_attention_heads / num_key_value_heads` query heads.
    pub num_key_value_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Width inside an expert, after SwiGLU.
    pub intermediate_size: usize,
    /// Experts per layer.
    pub num_local_experts: usize,
    /// Experts each token visits.
    pub num_experts_per_tok: usize,
    /// Tokens a windowed layer sees, the query's own included.
    pub sliding_window: usize,
    /// Bit `l` set: layer `l` is windowed; clear: it sees everything before it.
    pub windowed_layers: u128,
    /// Longest sequence the positions allow.
    pub max_position_embeddings: usize,
    /// Rotary embedding parameters.
    pub rope: Rope,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f32,
    /// Clamp of the gate (above) and of the linear part (both sides) in SwiGLU.
    pub swiglu_limit: f32,
}

/// YaRN rotary embedding: base frequencies, stretched by `factor` where they are slow.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of frequencies.
    pub theta: f32,
    /// Context extension factor; 1 or less turns YaRN off.
    pub factor: f32,
    /// Rotations within the original context above which a frequency is kept.
    pub beta_fast: f32,
    /// Rotations within the original context below which a frequency is divided by `factor`.
    pub beta_slow: f32,
    /// Context length before extension, in positions.
    pub original_context: usize,
    /// The two bounds between which frequencies are blended are rounded to whole indices, outwards.
    pub truncate: bool,
    /// What queries and keys are multiplied by; `None` is `0.1 ln(factor) + 1`.
    pub attention_factor: Option<f64>,
}

/// A hyper-parameter that cannot be run: its name, its value, and what was expected.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigError {
    /// The parameter, under its Hugging Face name.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
    /// What it should have been.
    pub expected: &'static str,
}

impl core::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} is {}, expected {}", self.name, self.value, self.expected)
    }
}

impl core::error::Error for ConfigError {}

impl ModelConfig {
    /// Elements of all query heads of one position.
    pub const fn q_dim(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Elements of all key (or value) heads of one position.
    pub const fn kv_dim(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Query heads per key-value head.
    pub const fn group_size(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }

    /// Tokens of context layer `layer` keeps: `None` is all of them.
    pub const fn window(&self, layer: usize) -> Option<usize> {
        if self.windowed_layers >> layer & 1 == 1 { Some(self.sliding_window) } else { None }
    }

    /// Refuses what no engine of this project can run, and sizes that would overflow.
    pub fn check(&self) -> Result<(), ConfigError> {
        const MAX_DIM: usize = 1 << 24;
        let dims = [
            ("vocab_size", self.vocab_size, MAX_DIM),
            ("hidden_size", self.hidden_size, 1 << 20),
            ("num_hidden_layers", self.num_hidden_layers, 128),
            ("num_attention_heads", self.num_attention_heads, 1 << 12),
            ("num_key_value_heads", self.num_key_value_heads, 1 << 12),
            ("head_dim", self.head_dim, 1 << 10),
            ("intermediate_size", self.intermediate_size, 1 << 20),
            ("num_local_experts", self.num_local_experts, 1 << 12),
            ("num_experts_per_tok", self.num_experts_per_tok, self.num_local_experts),
            ("sliding_window", self.sliding_window, MAX_DIM * 16),
            ("max_position_embeddings", self.max_position_embeddings, MAX_DIM * 16),
            ("rope original context", self.rope.original_context, MAX_DIM * 16),
        ];
        for (name, value, max) in dims {
            if value == 0 || value > max {
                let expected = match name {
                    "num_hidden_layers" => "1 to 128",
                    "num_experts_per_tok" => "1 to num_local_experts",
                    _ => "a positive size of sane magnitude",
                };
                return Err(ConfigError { name, value: value as f64, expected });
            }
        }
        let multiple = |name, value: usize, of: usize, expected| {
            if value.is_multiple_of(of) {
                Ok(())
            } else {
                Err(ConfigError { name, value: value as f64, expected })
            }
        };
        multiple("hidden_size", self.hidden_size, 32, "a multiple of 32")?;
        multiple("intermediate_size", self.intermediate_size, 32, "a multiple of 32")?;
        multiple("head_dim", self.head_dim, 2, "an even number")?;
        multiple(
            "num_attention_heads",
            self.num_attention_heads,
            self.num_key_value_heads,
            "a multiple of num_key_value_heads",
        )?;
        let positive = [
            ("rope_theta", self.rope.theta),
            ("rope factor", self.rope.factor),
            ("rope beta_fast", self.rope.beta_fast),
            ("rope beta_slow", self.rope.beta_slow),
            ("rms_norm_eps", self.rms_norm_eps),
            ("swiglu_limit", self.swiglu_limit),
        ];
        for (name, value) in positive {
            if !(value.is_finite() && value > 0.0) {
                return Err(ConfigError {
                    name,
                    value: value as f64,
                    expected: "a positive finite number",
                });
            }
        }
        if let Some(value) = self.rope.attention_factor
            && !(value.is_finite() && value > 0.0)
        {
            return Err(ConfigError {
                name: "rope attention_factor",
                value,
                expected: "a positive finite number",
            });
        }
        if self.rope.theta <= 1.0 {
            return Err(ConfigError {
                name: "rope_theta",
                value: self.rope.theta as f64,
                expected: "a base above 1",
            });
        }
        Ok(())
    }
}
