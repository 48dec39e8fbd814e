//! Snapshots: a folder with `config.json` and safetensors, Hugging Face's or OpenAI's naming.

use std::collections::BTreeSet;
use std::path::Path;

use shared::model::ModelConfig;
use shared::mxfp4;

use super::config::{self, Described};
use super::error::ModelError;
use super::names::{ExpertNames, HUGGING_FACE, Names, ORIGINAL, Qkv};
use super::shards::{self, Tensor, Tensors};
use super::weights::{ExpertWeights, Experts, Layer, Linear, Matrix, Weights};

/// Maps and checks the snapshot in `dir`.
pub(crate) fn load(dir: &Path) -> Result<Weights, ModelError> {
    let config_path = dir.join("config.json");
    if !config_path.is_file() {
        return Err(ModelError::file(dir, "config.json is not there, expected a model snapshot"));
    }
    assemble(dir, config::read(&config_path)?, shards::open(dir)?)
}

/// The model that `tensors` make; messages about their names speak of `dir`.
pub(crate) fn assemble(
    dir: &Path,
    described: Described,
    tensors: Tensors,
) -> Result<Weights, ModelError> {
    let names = if tensors.contains_key(HUGGING_FACE.embedding)
        || tensors.keys().any(|name| name.starts_with(HUGGING_FACE.block))
    {
        &HUGGING_FACE
    } else if tensors.contains_key(ORIGINAL.embedding)
        || tensors.keys().any(|name| name.starts_with(ORIGINAL.block))
    {
        &ORIGINAL
    } else {
        let found: Vec<String> = tensors.into_keys().collect();
        return Err(ModelError::tensors(dir, "unknown tensors", &found));
    };
    let Described { config, attention_bias } = described;
    let mut reader = Reader { dir, config: &config, attention_bias, names, tensors };
    reader.check_names()?;
    reader.read()
}

struct Reader<'a> {
    dir: &'a Path,
    config: &'a ModelConfig,
    attention_bias: bool,
    names: &'static Names,
    tensors: Tensors,
}

impl Reader<'_> {
    /// Refuses a set of tensors that is not exactly the expected one.
    fn check_names(&self) -> Result<(), ModelError> {
        let dir = self.dir;
        let expected: BTreeSet<String> = self.expected().into_iter().collect();
        let missing: Vec<String> =
            expected.iter().filter(|name| !self.tensors.contains_key(*name)).cloned().collect();
        if !missing.is_empty() {
            return Err(ModelError::tensors(dir, "missing tensors", &missing));
        }
        let unknown: Vec<String> =
            self.tensors.keys().filter(|name| !expected.contains(*name)).cloned().collect();
        if !unknown.is_empty() {
            return Err(ModelError::tensors(dir, "unknown tensors", &unknown));
        }
        Ok(())
    }

    /// Every tensor the model needs; for experts, in the form that is there.
    fn expected(&self) -> Vec<String> {
        let names = self.names;
        let block = &names.in_block;
        let mut expected: Vec<String> =
            [names.embedding, names.unembedding, names.norm].map(String::from).into();
        for layer in 0..self.config.num_hidden_layers {
            let of = |part| names.of(layer, part);
            expected.extend([of(block.attn_norm), of(block.sinks), of(block.mlp_norm)]);
            let qkv = match &block.qkv {
                Qkv::Split(parts) => parts.as_slice(),
                Qkv::Fused(part) => std::slice::from_ref(part),
            };
            for part in qkv.iter().chain([&block.o]) {
                let [weight, bias] = names.linear(layer, part);
                expected.push(weight);
                expected.extend(self.attention_bias.then_some(bias));
            }
            expected.extend(names.linear(layer, block.router));
            for product in [&block.gate_up, &block.down] {
                if self.is_mxfp4(layer, product) {
                    expected.extend([of(product.blocks), of(product.scales)]);
                } else {
                    expected.push(of(product.dense));
                }
                expected.push(of(product.bias));
            }
        }
        expected
    }

    fn is_mxfp4(&self, layer: usize, product: &ExpertNames) -> bool {
        [product.blocks, product.scales]
            .iter()
            .any(|part| self.tensors.contains_key(&self.names.of(layer, part)))
    }

    /// The tensor `name`, which [`Reader::check_names`] has found.
    fn take(&mut self, name: &str) -> Result<Tensor, ModelError> {
        self.tensors
            .remove(name)
            .ok_or_else(|| ModelError::tensors(self.dir, "missing tensors", &[name.to_owned()]))
    }

    fn vector(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        self.take(name)?.vector(name, shape)
    }

    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix, ModelError> {
        self.take(name)?.matrix(name, rows, cols)
    }

    fn linear(
        &mut self,
        layer: usize,
        part: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Linear, ModelError> {
        let [weight, bias] = self.names.linear(layer, part);
        Ok(Linear { weight: self.matrix(&weight, rows, cols)?, bias: self.vector(&bias, &[rows])? })
    }

    /// A projection of attention, whose bias is zero where the model has none.
    fn projection(
        &mut self,
        layer: usize,
        part: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Linear, ModelError> {
        if self.attention_bias {
            return self.linear(layer, part, rows, cols);
        }
        let [weight, _] = self.names.linear(layer, part);
        Ok(Linear { weight: self.matrix(&weight, rows, cols)?, bias: vec![0.0; rows] })
    }

    fn experts(
        &mut self,
        layer: usize,
        product: &ExpertNames,
        rows: usize,
        cols: usize,
    ) -> Result<Experts, ModelError> {
        let count = self.config.num_local_experts;
        let names = self.names;
        let weights = if self.is_mxfp4(layer, product) {
            let [blocks, scales] =
                [product.blocks, product.scales].map(|part| names.of(layer, part));
            let per_row = cols / mxfp4::BLOCK;
            ExpertWeights::Mxfp4 {
                blocks: self
                    .take(&blocks)?
                    .bytes(&blocks, &[count, rows, per_row, mxfp4::BLOCK_BYTES])?,
                scales: self.take(&scales)?.bytes(&scales, &[count, rows, per_row])?,
            }
        } else {
            let name = names.of(layer, product.dense);
            let tensor = self.take(&name)?;
            if names.in_block.in_out {
                ExpertWeights::InOut(tensor.float(&name, &[count, cols, rows])?, tensor.data)
            } else {
                ExpertWeights::OutIn(tensor.float(&name, &[count, rows, cols])?, tensor.data)
            }
        };
        let bias = self.vector(&names.of(layer, product.bias), &[count, rows])?;
        Ok(Experts { count, rows, cols, weights, bias })
    }

    fn qkv(&mut self, layer: usize) -> Result<[Linear; 3], ModelError> {
        let hidden = self.config.hidden_size;
        let (q, kv) = (self.config.q_dim(), self.config.kv_dim());
        match &self.names.in_block.qkv {
            Qkv::Split(parts) => Ok([
                self.projection(layer, parts[0], q, hidden)?,
                self.projection(layer, parts[1], kv, hidden)?,
                self.projection(layer, parts[2], kv, hidden)?,
            ]),
            Qkv::Fused(part) => {
                let fused = self.projection(layer, part, q + 2 * kv, hidden)?;
                Ok(split_rows(&fused, [q, kv, kv]))
            }
        }
    }

    fn layer(&mut self, layer: usize) -> Result<Layer, ModelError> {
        let ModelConfig { hidden_size, intermediate_size, num_attention_heads, .. } = *self.config;
        let block = &self.names.in_block;
        let of = |part| self.names.of(layer, part);
        let (attn_norm, sinks, mlp_norm) =
            (of(block.attn_norm), of(block.sinks), of(block.mlp_norm));
        let [q, k, v] = self.qkv(layer)?;
        Ok(Layer {
            attn_norm: self.vector(&attn_norm, &[hidden_size])?,
            q,
            k,
            v,
            sinks: self.vector(&sinks, &[num_attention_heads])?,
            o: self.projection(layer, block.o, hidden_size, self.config.q_dim())?,
            mlp_norm: self.vector(&mlp_norm, &[hidden_size])?,
            router: self.linear(layer, block.router, self.config.num_local_experts, hidden_size)?,
            gate_up: self.experts(layer, &block.gate_up, 2 * intermediate_size, hidden_size)?,
            down: self.experts(layer, &block.down, hidden_size, intermediate_size)?,
        })
    }

    fn read(&mut self) -> Result<Weights, ModelError> {
        let ModelConfig { vocab_size, hidden_size, num_hidden_layers, .. } = *self.config;
        Ok(Weights {
            config: self.config.clone(),
            embedding: self.matrix(self.names.embedding, vocab_size, hidden_size)?,
            layers: (0..num_hidden_layers).map(|l| self.layer(l)).collect::<Result<_, _>>()?,
            norm: self.vector(self.names.norm, &[hidden_size])?,
            unembedding: self.matrix(self.names.unembedding, vocab_size, hidden_size)?,
        })
    }
}

/// The three maps whose outputs, `rows` each, lie one after the other in `fused`.
pub(crate) fn split_rows(fused: &Linear, rows: [usize; 3]) -> [Linear; 3] {
    let mut first = 0;
    rows.map(|rows| {
        let part = fused.rows(first..first + rows);
        first += rows;
        part
    })
}
