//! Memory of the paged KV cache on a device. Which page holds what is [`crate::pages`]' to know.

use half::bf16;
use shared::kv::page_len;
use shared::model::ModelConfig;

use crate::gpu::{DeviceBuffer, DeviceSlice, GpuError, Stream};
use crate::pages::Geometry;

/// The pages of every layer.
pub struct KvMemory {
    layers: Vec<DeviceBuffer<bf16>>,
}

/// Bytes of one page of one layer.
pub fn page_bytes(config: &ModelConfig) -> u64 {
    (2 * page_len(config.num_key_value_heads, config.head_dim)) as u64
}

impl KvMemory {
    /// Allocates the pages and zeroes them. Kernels depend on nothing that a sequence has not written;
    /// what they read beside it is defined.
    pub fn new(
        stream: &Stream,
        config: &ModelConfig,
        geometry: Geometry,
    ) -> Result<KvMemory, GpuError> {
        let page = page_len(config.num_key_value_heads, config.head_dim);
        let layers = (0..config.num_hidden_layers)
            .map(|layer| {
                let windowed = config.window(layer).is_some();
                let pages = if windowed { geometry.windowed } else { geometry.full };
                let buffer = DeviceBuffer::new(stream.device(), pages * page)?;
                stream.fill(buffer.view(), 0)?;
                Ok(buffer)
            })
            .collect::<Result<_, GpuError>>()?;
        Ok(KvMemory { layers })
    }

    /// The pages of layer `layer`.
    pub fn layer(&self, layer: usize) -> DeviceSlice<'_, bf16> {
        self.layers[layer].view()
    }
}
