//! What the tensors of a snapshot are called.

/// One family of tensor names.
///
/// Sources: `GptOssForCausalLM.state_dict()` of transformers, and `gpt_oss/torch/weights.py` and
/// the `original/` folder of the published snapshots.
#[derive(Debug)]
pub(crate) struct Names {
    pub embedding: &'static str,
    pub unembedding: &'static str,
    pub norm: &'static str,
    /// Comes before a layer's number; a dot and a name of [`BlockNames`] follow it.
    pub block: &'static str,
    pub in_block: BlockNames,
}

/// Names within a layer; linear maps carry `.weight` and `.bias`.
#[derive(Debug)]
pub(crate) struct BlockNames {
    pub attn_norm: &'static str,
    pub qkv: Qkv,
    pub sinks: &'static str,
    pub o: &'static str,
    pub mlp_norm: &'static str,
    pub router: &'static str,
    pub gate_up: ExpertNames,
    pub down: ExpertNames,
    /// Experts in bf16 lie `[experts, in, out]` (else `[experts, out, in]`).
    pub in_out: bool,
}

/// Query, key and value projections: three maps, or one whose rows are q, then k, then v.
#[derive(Debug)]
pub(crate) enum Qkv {
    Split([&'static str; 3]),
    Fused(&'static str),
}

/// One product of the experts.
#[derive(Debug)]
pub(crate) struct ExpertNames {
    pub dense: &'static str,
    pub blocks: &'static str,
    pub scales: &'static str,
    pub bias: &'static str,
}

/// Hugging Face.
pub(crate) const HUGGING_FACE: Names = Names {
    embedding: "model.embed_tokens.weight",
    unembedding: "lm_head.weight",
    norm: "model.norm.weight",
    block: "model.layers.",
    in_block: BlockNames {
        attn_norm: "input_layernorm.weight",
        qkv: Qkv::Split(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
        sinks: "self_attn.sinks",
        o: "self_attn.o_proj",
        mlp_norm: "post_attention_layernorm.weight",
        router: "mlp.router",
        gate_up: ExpertNames {
            dense: "mlp.experts.gate_up_proj",
            blocks: "mlp.experts.gate_up_proj_blocks",
            scales: "mlp.experts.gate_up_proj_scales",
            bias: "mlp.experts.gate_up_proj_bias",
        },
        down: ExpertNames {
            dense: "mlp.experts.down_proj",
            blocks: "mlp.experts.down_proj_blocks",
            scales: "mlp.experts.down_proj_scales",
            bias: "mlp.experts.down_proj_bias",
        },
        in_out: true,
    },
};

/// OpenAI's `original/` files.
pub(crate) const ORIGINAL: Names = Names {
    embedding: "embedding.weight",
    unembedding: "unembedding.weight",
    norm: "norm.scale",
    block: "block.",
    in_block: BlockNames {
        attn_norm: "attn.norm.scale",
        qkv: Qkv::Fused("attn.qkv"),
        sinks: "attn.sinks",
        o: "attn.out",
        mlp_norm: "mlp.norm.scale",
        router: "mlp.gate",
        gate_up: ExpertNames {
            dense: "mlp.mlp1_weight",
            blocks: "mlp.mlp1_weight.blocks",
            scales: "mlp.mlp1_weight.scales",
            bias: "mlp.mlp1_bias",
        },
        down: ExpertNames {
            dense: "mlp.mlp2_weight",
            blocks: "mlp.mlp2_weight.blocks",
            scales: "mlp.mlp2_weight.scales",
            bias: "mlp.mlp2_bias",
        },
        in_out: false,
    },
};

impl Names {
    /// The full name of `part` in layer `layer`.
    pub fn of(&self, layer: usize, part: &str) -> String {
        format!("{}{layer}.{part}", self.block)
    }

    /// Weight and bias of the linear map `part` in layer `layer`.
    pub fn linear(&self, layer: usize, part: &str) -> [String; 2] {
        ["weight", "bias"].map(|kind| self.of(layer, &format!("{part}.{kind}")))
    }
}
