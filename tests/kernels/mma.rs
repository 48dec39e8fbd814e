//! The matrix instruction: with one-hot operands every element of every fragment is told apart.

use gptoss::gpu::Api;
use oracle::basics::{assert_close, product};
use oracle::random::uniform_bf16;
use shared::bf16;
use shared::frag::{Frag, Mfma9, Mma16816, Wmma11, Wmma12};

use crate::gpu::{Output, as_bf16, device, kernels, stream};

/// Side of a tile.
const SIDE: usize = 16;
/// Elements of a tile.
const TILE: usize = SIDE * SIDE;

/// A tile of one-hot matrices each: element `i` of matrix `i` is one.
fn one_hot() -> Vec<u16> {
    let mut tiles = vec![0; TILE * TILE];
    for element in 0..TILE {
        tiles[element * TILE + element] = bf16::from_f32(1.0);
    }
    tiles
}

/// `TILE` copies of a matrix whose elements are all different, 1 to 256: integers that bf16
/// holds exactly.
fn distinct() -> Vec<u16> {
    (0..TILE * TILE).map(|i| bf16::from_f32((i % TILE + 1) as f32)).collect()
}

fn to_f32(bits: &[u16]) -> Vec<f32> {
    bits.iter().map(|&x| bf16::to_f32(x)).collect()
}

/// `a * b^T` of one tile, exactly: for integers.
fn exact(a: &[f32], b: &[f32]) -> Vec<f32> {
    let cells = (0..SIDE).flat_map(|m| (0..SIDE).map(move |n| (m, n)));
    cells.map(|(m, n)| (0..SIDE).map(|k| a[m * SIDE + k] * b[n * SIDE + k]).sum()).collect()
}

pub fn tiles(a: &[u16], b: &[u16]) -> Vec<f32> {
    let stream = stream();
    let c = Output::new(&stream, 2 * a.len());
    let (a, b) = (stream.buffer_from(a).expect("a"), stream.buffer_from(b).expect("b"));
    kernels()
        .mma_tile_bf16(&stream, as_bf16(a.view()), as_bf16(b.view()), c.view())
        .expect("mma_tile");
    c.read(&stream)
}

#[test]
fn the_loaders_put_every_element_in_its_place() {
    for (case, a, b) in
        [("each element of a", one_hot(), distinct()), ("each element of b", distinct(), one_hot())]
    {
        let got = tiles(&a, &b);
        let operands = a.chunks(TILE).zip(b.chunks(TILE));
        for (tile, ((a, b), got)) in operands.zip(got.chunks(2 * TILE)).enumerate() {
            let expected = exact(&to_f32(a), &to_f32(b));
            assert_eq!(got[..TILE], expected, "{case}, tile {tile}, loaded from global memory");
            assert_eq!(got[TILE..], expected, "{case}, tile {tile}, loaded from workgroup memory");
        }
    }
}

#[test]
fn random_tiles_match_the_oracle() {
    const TILES: usize = 7;
    let (a, b) = (uniform_bf16(TILES * TILE, 1), uniform_bf16(TILES * TILE, 2));
    let got = tiles(&a, &b);
    for (tile, got) in got.chunks(2 * TILE).enumerate() {
        let exact = |x: &[u16]| -> Vec<f64> {
            x[tile * TILE..][..TILE].iter().map(|&x| bf16::to_f32(x).into()).collect()
        };
        let expected = product(&exact(&a), &exact(&b), [SIDE, SIDE, SIDE]);
        assert_close(&format!("tile {tile}, global"), &got[..TILE], &expected);
        assert_eq!(got[..TILE], got[TILE..], "tile {tile}: the two ways to load differ");
    }
}

#[test]
fn every_lane_holds_what_frag_says() {
    match (device().api(), device().properties().arch.as_str()) {
        (Api::Cuda, _) => probe::<Mma16816>(),
        (_, arch) if arch.starts_with("gfx11") => probe::<Wmma11>(),
        (_, arch) if arch.starts_with("gfx12") => probe::<Wmma12>(),
        (_, arch) if arch.starts_with("gfx9") => probe::<Mfma9>(),
        (_, arch) => panic!("no fragment layout is known for {arch}"),
    }
}

/// The two matrices of each tile, and c, through `index` to registers, one instruction, and back.
fn probe<F: Frag>() {
    assert_eq!(F::WAVE, kernels().wave());
    for (case, a, b) in
        [("each element of a", one_hot(), distinct()), ("each element of b", distinct(), one_hot())]
    {
        let start: Vec<f32> = (0..TILE).map(|i| 1000.0 + i as f32).collect();
        let got = fragments::<F>(&a, &b, &start);
        let operands = a.chunks(TILE).zip(b.chunks(TILE));
        for (tile, ((a, b), got)) in operands.zip(got.chunks(TILE)).enumerate() {
            let product = exact(&to_f32(a), &to_f32(b));
            let expected: Vec<f32> = product.iter().zip(&start).map(|(p, c)| p + c).collect();
            assert_eq!(got, expected, "{case}, tile {tile}");
        }
    }
}

/// `c + a * b^T` per tile, on registers laid out as `F` says; `c` is the same for all tiles.
fn fragments<F: Frag>(a: &[u16], b: &[u16], c: &[f32]) -> Vec<f32> {
    let stream = stream();
    let lay_out = |matrix: &[u16], index: fn(u32, u32) -> (u32, u32)| -> Vec<u32> {
        let mut halves = Vec::new();
        for tile in matrix.chunks(TILE) {
            for (lane, i) in lanes(F::WAVE, F::AB_PER_LANE) {
                let (row, k) = index(lane, i);
                halves.push(tile[row as usize * SIDE + k as usize]);
            }
        }
        halves.chunks(2).map(|pair| u32::from(pair[0]) | u32::from(pair[1]) << 16).collect()
    };
    let c_places: Vec<usize> = lanes(F::WAVE, F::C_PER_LANE)
        .map(|(lane, i)| F::c_index(lane, i))
        .map(|(m, n)| m as usize * SIDE + n as usize)
        .collect();
    let tiles = a.len() / TILE;
    let c_registers: Vec<f32> =
        (0..tiles).flat_map(|_| c_places.iter().map(|&place| c[place])).collect();

    let out = Output::new(&stream, c_registers.len());
    stream.upload(out.view(), &c_registers).expect("c");
    let a = stream.buffer_from(&lay_out(a, F::a_index)).expect("a");
    let b = stream.buffer_from(&lay_out(b, F::b_index)).expect("b");
    kernels()
        .mma_fragments_bf16(&stream, a.view(), b.view(), out.view(), F::AB_PER_LANE as usize)
        .expect("mma_fragments");

    let registers = out.read(&stream);
    let mut matrices = vec![f32::NAN; registers.len()];
    for (tile, registers) in matrices.chunks_mut(TILE).zip(registers.chunks(TILE)) {
        for (&place, &value) in c_places.iter().zip(registers) {
            tile[place] = value;
        }
    }
    matrices
}

/// Lanes of a wave and the elements of each, in the order registers are stored.
fn lanes(wave: u32, per_lane: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..wave).flat_map(move |lane| (0..per_lane).map(move |i| (lane, i)))
}
