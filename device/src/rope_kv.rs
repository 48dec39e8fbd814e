//! Between the QKV product and attention: rotary embedding, rounding to bf16, and the KV cache.
//!
//! One wave per row and head. Queries go where the attention kernels read them, keys and values
//! into the page of their position. Rotation is f32 with the host's table of angles; everything is
//! rounded once.

use shared::block::{ROWS, STEP, tiled_index};
use shared::kernels::rows::{ROPE_HEADS, qkv_rope_kv};
use shared::kv::{key_index, page_len, value_index};
use shared::rope::rotate;

use crate::arch::{WAVE, lane, pack_bf16, wave_id, workgroup_id_x, workgroup_id_y};

const _: qkv_rope_kv::Signature = qkv_rope_kv;

/// The kernel; shapes are in the table.
///
/// # Safety
///
/// The launch contract of the table: every position is in the table of angles, and its page is one
/// of `pages`, written by no other row of the launch at that position.
#[unsafe(no_mangle)]
pub unsafe extern "gpu-kernel" fn qkv_rope_kv(
    qkv: *const f32,
    rope: *const f32,
    positions: *const u32,
    page_of: *const u32,
    q: *mut u16,
    pages: *mut u16,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    rows: u32,
) {
    crate::arch::wait_for_earlier();
    let (row, head) = (workgroup_id_y(), workgroup_id_x() * ROPE_HEADS + wave_id());
    if head >= heads + 2 * kv_heads {
        return;
    }
    let (dim, kv_heads) = (head_dim as usize, kv_heads as usize);
    let half = dim / 2;
    // SAFETY: the row and the head exist, and the row's position and page are in their tables.
    unsafe {
        let position = *positions.add(row as usize) as usize;
        let page = pages.add(*page_of.add(row as usize) as usize * page_len(kv_heads, dim));
        let at = row as usize * (heads as usize + 2 * kv_heads) + head as usize;
        let from = qkv.add(at * dim);
        let angles = rope.add(position * dim);
        for i in (lane() as usize..half).step_by(WAVE as usize) {
            let (a, b) = (*from.add(i), *from.add(i + half));
            if head >= heads + kv_heads as u32 {
                let kv_head = head as usize - heads as usize - kv_heads;
                let place = |d| value_index(kv_heads, kv_head, dim, position, d);
                *page.add(place(i)) = round(a);
                *page.add(place(i + half)) = round(b);
                continue;
            }
            let (a, b) = rotate(a, b, *angles.add(i), *angles.add(i + half));
            if head >= heads {
                let kv_head = (head - heads) as usize;
                *page.add(key_index(kv_head, dim, position, i)) = round(a);
                *page.add(key_index(kv_head, dim, position, i + half)) = round(b);
            } else {
                let group = heads / kv_heads as u32;
                let query_rows = (rows * group) as usize;
                let kv_head = (head / group) as usize;
                let q = q.add(kv_head * query_rows.next_multiple_of(ROWS) * dim);
                let query = (row * group + head % group) as usize;
                *q.add(tiled_index(query, i, dim / STEP)) = round(a);
                *q.add(tiled_index(query, i + half, dim / STEP)) = round(b);
            }
        }
    }
}

#[inline(always)]
fn round(x: f32) -> u16 {
    pack_bf16(x, 0.0) as u16
}
