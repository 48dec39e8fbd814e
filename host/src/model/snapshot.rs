//! Snapshots: a folder with `config.json` and safetensors, Hugging Face's or OpenAI's naming.

use std::collections::BTreeSet;
use std::path::Path;

use shared::mxfp4;

use super::config::{self, Described};
use super::error::ModelError;
use super::names::{ExpertNames, HUGGING_FACE, Names, ORIGINAL, Qkv};
use super::pad::Width;
use super::shards::{self, Tensor, Tensors};
use super::weights::{ExpertWeights, Experts, Layer, Linear, Matrix, Weights};

/// Maps and checks the snapshot in `dir`.
pub(crate) fn load(dir: &Path) -> Result<Weights, ModelError> {
    assemble(dir, config::read(&dir.join("config.json"))?, shards::open(dir)?)
}

/// The model that `tensors` make; messages about their names speak of `dir`.
pub(crate) fn assemble(
    dir: &Path,
    described: Described,
    mut tensors: Tensors,
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
    // Buffers that some versions of transformers save; they follow from the configuration.
    tensors.retain(|name, _| !name.ends_with("rotary_emb.inv_freq"));
    let mut reader = Reader { dir, described: &described, names, tensors };
    reader.check_names()?;
    reader.read()
}

struct Reader<'a> {
    dir: &'a Path,
    described: &'a Described,
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
        let ends = [names.embedding, names.unembedding];
        let tied = self.described.tied && ends.iter().any(|name| self.tensors.contains_key(*name));
        let mut expected = vec![names.norm.to_owned()];
        for name in ends {
            if !tied || self.tensors.contains_key(name) {
                expected.push(name.to_owned());
            }
        }
        for layer in 0..self.described.config.num_hidden_layers {
            let of = |part| names.of(layer, part);
            expected.extend([of(block.attn_norm), of(block.sinks), of(block.mlp_norm)]);
            let qkv = match &block.qkv {
                Qkv::Split(parts) => parts.as_slice(),
                Qkv::Fused(part) => std::slice::from_ref(part),
            };
            for part in qkv.iter().chain([&block.o]) {
                let [weight, bias] = names.linear(layer, part);
                expected.push(weight);
                expected.extend(self.described.attention_bias.then_some(bias));
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

    /// The scale of an RMSNorm.
    fn norm(&mut self, name: &str) -> Result<Vec<f32>, ModelError> {
        let widths = &self.described.widths;
        Ok(widths.norm(self.vector(name, &[widths.hidden])?))
    }

    fn matrix(&mut self, name: &str, rows: Width, cols: Width) -> Result<Matrix, ModelError> {
        let widths = &self.described.widths;
        let matrix = self.take(name)?.matrix(name, widths.stored(rows), widths.stored(cols))?;
        Ok(widths.matrix(matrix, rows, cols))
    }

    fn linear(
        &mut self,
        layer: usize,
        part: &str,
        rows: Width,
        cols: Width,
    ) -> Result<Linear, ModelError> {
        let widths = &self.described.widths;
        let [weight, bias] = self.names.linear(layer, part);
        let bias = self.vector(&bias, &[widths.stored(rows)])?;
        let weight = self.matrix(&weight, rows, cols)?;
        Ok(Linear { weight, bias: widths.vector(bias, rows) })
    }

    /// A projection of attention, whose bias is zero where the model has none.
    fn projection(
        &mut self,
        layer: usize,
        part: &str,
        rows: Width,
        cols: Width,
    ) -> Result<Linear, ModelError> {
        if self.described.attention_bias {
            return self.linear(layer, part, rows, cols);
        }
        let [weight, _] = self.names.linear(layer, part);
        let weight = self.matrix(&weight, rows, cols)?;
        Ok(Linear { bias: vec![0.0; weight.rows], weight })
    }

    fn experts(
        &mut self,
        layer: usize,
        product: &ExpertNames,
        rows: Width,
        cols: Width,
    ) -> Result<Experts, ModelError> {
        let Described { config, widths, .. } = self.described;
        let count = config.num_local_experts;
        let (n, k) = (widths.stored(rows), widths.stored(cols));
        let names = self.names;
        let weights = if self.is_mxfp4(layer, product) {
            if !widths.are_whole() {
                return Err(ModelError::file(
                    self.dir,
                    format!(
                        "hidden_size is {} and intermediate_size {}, expected multiples of 32 for \
                         experts in MXFP4",
                        widths.hidden, widths.inner
                    ),
                ));
            }
            let [blocks, scales] =
                [product.blocks, product.scales].map(|part| names.of(layer, part));
            let per_row = k / mxfp4::BLOCK;
            ExpertWeights::Mxfp4 {
                blocks: self
                    .take(&blocks)?
                    .bytes(&blocks, &[count, n, per_row, mxfp4::BLOCK_BYTES])?,
                scales: self.take(&scales)?.bytes(&scales, &[count, n, per_row])?,
            }
        } else {
            let name = names.of(layer, product.dense);
            let tensor = self.take(&name)?;
            if names.in_block.in_out {
                ExpertWeights::InOut(tensor.float(&name, &[count, k, n])?, tensor.data)
            } else {
                ExpertWeights::OutIn(tensor.float(&name, &[count, n, k])?, tensor.data)
            }
        };
        let bias = self.vector(&names.of(layer, product.bias), &[count, n])?;
        Ok(widths.experts(Experts { count, rows: n, cols: k, weights, bias }, rows, cols))
    }

    fn qkv(&mut self, layer: usize) -> Result<[Linear; 3], ModelError> {
        let config = &self.described.config;
        let (q, kv) = (config.q_dim(), config.kv_dim());
        match &self.names.in_block.qkv {
            Qkv::Split(parts) => Ok([
                self.projection(layer, parts[0], Width::Other(q), Width::Hidden)?,
                self.projection(layer, parts[1], Width::Other(kv), Width::Hidden)?,
                self.projection(layer, parts[2], Width::Other(kv), Width::Hidden)?,
            ]),
            Qkv::Fused(part) => {
                let fused =
                    self.projection(layer, part, Width::Other(q + 2 * kv), Width::Hidden)?;
                Ok(split_rows(&fused, [q, kv, kv]))
            }
        }
    }

    fn layer(&mut self, layer: usize) -> Result<Layer, ModelError> {
        let config = &self.described.config;
        let block = &self.names.in_block;
        let of = |part| self.names.of(layer, part);
        let (attn_norm, sinks, mlp_norm) =
            (of(block.attn_norm), of(block.sinks), of(block.mlp_norm));
        let (q_dim, experts) =
            (Width::Other(config.q_dim()), Width::Other(config.num_local_experts));
        let [q, k, v] = self.qkv(layer)?;
        Ok(Layer {
            attn_norm: self.norm(&attn_norm)?,
            q,
            k,
            v,
            sinks: self.vector(&sinks, &[config.num_attention_heads])?,
            o: self.projection(layer, block.o, Width::Hidden, q_dim)?,
            mlp_norm: self.norm(&mlp_norm)?,
            router: self.linear(layer, block.router, experts, Width::Hidden)?,
            gate_up: self.experts(layer, &block.gate_up, Width::Pairs, Width::Hidden)?,
            down: self.experts(layer, &block.down, Width::Hidden, Width::Inner)?,
        })
    }

    /// A matrix `[vocab, hidden]`; `None` when it is not there, being the other one.
    fn end(&mut self, name: &str) -> Result<Option<Matrix>, ModelError> {
        let vocab = Width::Other(self.described.config.vocab_size);
        let found = self.tensors.contains_key(name);
        found.then(|| self.matrix(name, vocab, Width::Hidden)).transpose()
    }

    fn read(&mut self) -> Result<Weights, ModelError> {
        let Names { embedding, unembedding, norm, .. } = *self.names;
        // Two that differ stay two, tied or not, as in transformers.
        let (embedding, unembedding) = match (self.end(embedding)?, self.end(unembedding)?) {
            (Some(embedding), Some(unembedding)) => (embedding, unembedding),
            (Some(both), None) | (None, Some(both)) => (both.clone(), both),
            (None, None) => {
                let names = [embedding, unembedding].map(String::from);
                return Err(ModelError::tensors(self.dir, "missing tensors", &names));
            }
        };
        let config = self.described.config.clone();
        Ok(Weights {
            embedding,
            layers: (0..config.num_hidden_layers)
                .map(|l| self.layer(l))
                .collect::<Result<_, _>>()?,
            norm: self.norm(norm)?,
            unembedding,
            config,
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
