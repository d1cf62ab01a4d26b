//! XOR against the base and the split into planes: plain loops that the compiler
//! vectorises, compiled once per instruction set and chosen at run time.

use multiversion::multiversion;

/// XORs two streams of 16-bit words into the exponent byte (bits 7 to 14) and the
/// byte of sign and mantissa: the layout of bfloat16, which BitX applies to all.
#[multiversion(targets("x86_64+avx512f+avx512bw", "x86_64+avx2", "aarch64+neon"))]
pub fn split_exponent(base: &[u8], fine: &[u8], exponent: &mut [u8], rest: &mut [u8]) {
    let words = base.chunks_exact(2).zip(fine.chunks_exact(2));
    for (((b, f), e), r) in words.zip(exponent).zip(rest) {
        let x = u16::from_le_bytes([b[0] ^ f[0], b[1] ^ f[1]]);
        *e = (x >> 7) as u8;
        *r = (x >> 8) as u8 & 0x80 | x as u8 & 0x7f;
    }
}

/// Undoes [`split_exponent`].
#[multiversion(targets("x86_64+avx512f+avx512bw", "x86_64+avx2", "aarch64+neon"))]
pub fn join_exponent(base: &[u8], exponent: &[u8], rest: &[u8], fine: &mut [u8]) {
    let words = base.chunks_exact(2).zip(fine.chunks_exact_mut(2));
    for (((b, f), &e), &r) in words.zip(exponent).zip(rest) {
        let x = u16::from(r & 0x80) << 8 | u16::from(e) << 7 | u16::from(r & 0x7f);
        let word = u16::from_le_bytes([b[0], b[1]]) ^ x;
        f.copy_from_slice(&word.to_le_bytes());
    }
}

/// XORs two streams of `N`-byte elements into `N` planes of bytes, laid one after
/// the other in `planes`.
pub fn split_bytes<const N: usize>(base: &[u8], fine: &[u8], planes: &mut [u8]) {
    let count = fine.len() / N;
    for (at, plane) in planes.chunks_exact_mut(count.max(1)).enumerate() {
        split_byte(base, fine, N, at, plane);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw", "x86_64+avx2", "aarch64+neon"))]
fn split_byte(base: &[u8], fine: &[u8], width: usize, at: usize, plane: &mut [u8]) {
    let elements = base.chunks_exact(width).zip(fine.chunks_exact(width));
    for ((b, f), p) in elements.zip(plane) {
        *p = b[at] ^ f[at];
    }
}

/// Undoes [`split_bytes`] for elements of four bytes.
#[multiversion(targets("x86_64+avx512f+avx512bw", "x86_64+avx2", "aarch64+neon"))]
pub fn join_four(base: &[u8], planes: [&[u8]; 4], fine: &mut [u8]) {
    let elements = base.chunks_exact(4).zip(fine.chunks_exact_mut(4));
    let [p0, p1, p2, p3] = planes;
    for (((((b, f), &a0), &a1), &a2), &a3) in elements.zip(p0).zip(p1).zip(p2).zip(p3) {
        let word = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let word = word ^ u32::from_le_bytes([a0, a1, a2, a3]);
        f.copy_from_slice(&word.to_le_bytes());
    }
}

/// XORs bytes.
#[multiversion(targets("x86_64+avx512f+avx512bw", "x86_64+avx2", "aarch64+neon"))]
pub fn xor(a: &[u8], b: &[u8], out: &mut [u8]) {
    for ((a, b), o) in a.iter().zip(b).zip(out) {
        *o = a ^ b;
    }
}

/// The four planes of a buffer that [`split_bytes`] filled.
pub fn quarters(planes: &[u8]) -> [&[u8]; 4] {
    let length = planes.len() / 4;
    [0, 1, 2, 3].map(|at| &planes[at * length..(at + 1) * length])
}
