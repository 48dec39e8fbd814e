//! The launches of a step, over all ranks of a model.
//!
//! Every rank records the same list of launches on its own stream. Where a layer's result is spread
//! over ranks, an [`Exchange`] brings the parts together before the next launch, in the order of the
//! ranks' numbers, so that a sum has the same bits in every run. One rank has everything itself: its
//! exchange is [`Alone`].

use super::plan::Plan;
use super::rank::Rank;
use crate::gpu::GpuError;

/// What ranks hand each other within a step. Nothing here waits on the host: an exchange is work
/// queued on the ranks' streams.
pub trait Exchange: Send {
    /// Completes the residual stream behind attention's output projection.
    fn after_attention(&self, ranks: &[Rank], plan: &Plan) -> Result<(), GpuError>;

    /// Completes the residual stream behind the experts.
    fn after_experts(&self, ranks: &[Rank], plan: &Plan) -> Result<(), GpuError>;
}

/// The exchange of one rank, which holds the whole model.
pub struct Alone;

impl Exchange for Alone {
    fn after_attention(&self, _: &[Rank], _: &Plan) -> Result<(), GpuError> {
        Ok(())
    }

    fn after_experts(&self, _: &[Rank], _: &Plan) -> Result<(), GpuError> {
        Ok(())
    }
}

/// A model over its ranks.
pub struct Forward {
    /// In the order of their numbers; the first one chooses tokens.
    pub ranks: Vec<Rank>,
    /// Between them.
    pub exchange: Box<dyn Exchange>,
}

impl Forward {
    /// The rank that chooses tokens.
    pub fn first(&self) -> &Rank {
        &self.ranks[0]
    }

    /// Queues everything up to the residual stream after the last layer.
    pub fn layers(&self, plan: &Plan, layers: usize) -> Result<(), GpuError> {
        self.ranks.iter().try_for_each(|rank| rank.embed(plan))?;
        for layer in 0..layers {
            self.ranks.iter().try_for_each(|rank| rank.attention(plan, layer))?;
            self.exchange.after_attention(&self.ranks, plan)?;
            self.ranks.iter().try_for_each(|rank| rank.experts(plan, layer))?;
            self.exchange.after_experts(&self.ranks, plan)?;
        }
        Ok(())
    }

    /// Queues logits and choice of the tokens that are wanted, `most` rows at a time.
    pub fn choices(&self, plan: &Plan, most: usize) -> Result<(), GpuError> {
        for first in (0..plan.choices).step_by(most) {
            let rows = most.min(plan.choices - first);
            self.first().logits(plan, first, rows)?;
            self.first().choose(plan, first, rows)?;
        }
        Ok(())
    }
}
