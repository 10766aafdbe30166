//! The kernels of products with blocks in x86-64's vector instructions. Knows nothing about which one is picked.

use std::arch::x86_64::*;

use super::{Tile, VECTORS};

/// A kernel over vectors of `$lanes` columns: how codes are loaded, values spread, products added, and the operations on
/// vectors of integers and floats.
macro_rules! kernel {
    (
        $(#[$doc:meta])*
        $name:ident, $features:literal, $lanes:literal, $group:literal, $integers:ty,
        load: |$codes:ident| $load:expr,
        spread: |$bytes:ident| $spread:expr,
        add: |$sum:ident, $left:ident, $right:ident| $add:expr,
        bytes: |$signed:ident| $widen:expr,
        halves: |$half:ident| $to_floats:expr,
        integers: $splat:ident $add_integers:ident $multiply:ident $convert:ident,
        floats: $splat_floats:ident $multiply_floats:ident $fused:ident $load_floats:ident $store_floats:ident $(,)?
    ) => {
        $(#[$doc])*
        #[target_feature(enable = $features)]
        pub(super) fn $name<const ROWS: usize, const PART: usize, const PARTS: usize>(
            tile: Tile<'_, ROWS>,
        ) {
            let Tile { rows, run, sums } = tile;
            let codes = run.codes.as_chunks::<{ $lanes * $group }>().0.as_chunks::<VECTORS>().0;
            let scales = run.scales.as_chunks::<$lanes>().0.as_chunks::<VECTORS>().0;
            let minimums = run.minimums.as_chunks::<$lanes>().0.as_chunks::<VECTORS>().0;
            let factors = run.factors.as_chunks::<$lanes>().0.as_chunks::<VECTORS>().0;
            let least = run.least.as_chunks::<$lanes>().0.as_chunks::<VECTORS>().0;
            let sums = sums.as_chunks_mut::<$lanes>().0.as_chunks_mut::<VECTORS>().0;
            let (groups, blocks) = (PART / $group, factors.len());
            // One check here for all of a loop's.
            let values = rows.map(|row| &row.values.as_chunks::<PART>().0[..blocks * PARTS]);
            let by_part = rows.map(|row| &row.sums[..blocks * PARTS]);
            let by_block = rows.map(|row| &row.scales[..blocks]);
            let mut results = [[$splat_floats(0.0); VECTORS]; ROWS];
            for (results, sums) in results.iter_mut().zip(&*sums) {
                for (result, sums) in results.iter_mut().zip(sums) {
                    // SAFETY: it is as long as the vector that is read.
                    *result = unsafe { $load_floats(sums.as_ptr()) };
                }
            }
            for block in 0..blocks {
                let mut totals = [[$splat(0); VECTORS]; ROWS];
                for part in block * PARTS..(block + 1) * PARTS {
                    let mut products = [[$splat(0); VECTORS]; ROWS];
                    for (products, sums) in products.iter_mut().zip(&by_part) {
                        *products = [$splat(-run.form.zero * sums[part]); VECTORS];
                    }
                    for (group, codes) in codes[part * groups..][..groups].iter().enumerate() {
                        let mut weights = [$splat(0); VECTORS];
                        for (weights, codes) in weights.iter_mut().zip(codes) {
                            let $codes = codes.as_ptr();
                            // SAFETY: it is as long as the vector that is read.
                            *weights = unsafe { $load };
                        }
                        for (products, values) in products.iter_mut().zip(&values) {
                            let $bytes = values[part].as_chunks::<$group>().0[group];
                            let $left: $integers = $spread;
                            for (product, $right) in products.iter_mut().zip(weights) {
                                let $sum = *product;
                                *product = $add;
                            }
                        }
                    }
                    // A block's only part has no scale.
                    if PARTS == 1 {
                        totals = products;
                        continue;
                    }
                    let scales = &scales[part];
                    for vector in 0..VECTORS {
                        let $signed = scales[vector].as_ptr();
                        // SAFETY: it is as long as the vector that is read.
                        let scale: $integers = unsafe { $widen };
                        for row in 0..ROWS {
                            let scaled = $multiply(products[row][vector], scale);
                            totals[row][vector] = $add_integers(totals[row][vector], scaled);
                        }
                    }
                }
                for vector in 0..VECTORS {
                    let $half = factors[block][vector].as_ptr();
                    // SAFETY: it is as long as the vector that is read.
                    let factor = unsafe { $to_floats };
                    for row in 0..ROWS {
                        let scale = $multiply_floats(factor, $splat_floats(by_block[row][block]));
                        let total = $convert(totals[row][vector]);
                        results[row][vector] = $fused(scale, total, results[row][vector]);
                    }
                }
            }
            for (block, least) in least.iter().enumerate() {
                let mut totals = [[$splat(0); VECTORS]; ROWS];
                for part in block * PARTS..(block + 1) * PARTS {
                    let minimums = &minimums[part];
                    for vector in 0..VECTORS {
                        let $signed = minimums[vector].as_ptr();
                        // SAFETY: it is as long as the vector that is read.
                        let minimum: $integers = unsafe { $widen };
                        for row in 0..ROWS {
                            let added = $multiply($splat(by_part[row][part]), minimum);
                            totals[row][vector] = $add_integers(totals[row][vector], added);
                        }
                    }
                }
                for vector in 0..VECTORS {
                    let $half = least[vector].as_ptr();
                    // SAFETY: it is as long as the vector that is read.
                    let least = unsafe { $to_floats };
                    for row in 0..ROWS {
                        let scale = $multiply_floats(least, $splat_floats(-by_block[row][block]));
                        let total = $convert(totals[row][vector]);
                        results[row][vector] = $fused(scale, total, results[row][vector]);
                    }
                }
            }
            for (results, sums) in results.iter().zip(sums) {
                for (result, sums) in results.iter().zip(sums) {
                    // SAFETY: it is as long as the vector that is written.
                    unsafe { $store_floats(sums.as_mut_ptr(), *result) };
                }
            }
        }
    };
}

/// [`super::unpack`] in vectors of 64 bytes.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn unpack_512(slab: usize, low: &[u8], high: &[u8], codes: &mut [u8]) {
    super::unpack(slab, low, high, codes);
}

/// In vectors of 32 bytes.
#[target_feature(enable = "avx2")]
pub(super) fn unpack_256(slab: usize, low: &[u8], high: &[u8], codes: &mut [u8]) {
    super::unpack(slab, low, high, codes);
}

kernel! {
    /// AVX-512 VNNI.
    vnni, "avx512f,avx512bw,avx512vnni", 16, 4, __m512i,
    load: |codes| _mm512_loadu_si512(codes.cast()),
    spread: |bytes| _mm512_set1_epi32(i32::from_le_bytes(bytes.map(|byte| byte as u8))),
    add: |sum, left, right| _mm512_dpbusd_epi32(sum, right, left),
    bytes: |signed| _mm512_cvtepi8_epi32(_mm_loadu_si128(signed.cast())),
    halves: |half| _mm512_cvtph_ps(_mm256_loadu_si256(half.cast())),
    integers: _mm512_set1_epi32 _mm512_add_epi32 _mm512_mullo_epi32 _mm512_cvtepi32_ps,
    floats: _mm512_set1_ps _mm512_mul_ps _mm512_fmadd_ps _mm512_loadu_ps _mm512_storeu_ps,
}

kernel! {
    /// AVX-512 without VNNI.
    avx512, "avx512f,avx512bw", 16, 2, __m512i,
    load: |codes| _mm512_cvtepu8_epi16(_mm256_loadu_si256(codes.cast())),
    spread: |bytes| _mm512_set1_epi32(i32::from(bytes[0]) & 0xffff | i32::from(bytes[1]) << 16),
    add: |sum, left, right| _mm512_add_epi32(sum, _mm512_madd_epi16(left, right)),
    bytes: |signed| _mm512_cvtepi8_epi32(_mm_loadu_si128(signed.cast())),
    halves: |half| _mm512_cvtph_ps(_mm256_loadu_si256(half.cast())),
    integers: _mm512_set1_epi32 _mm512_add_epi32 _mm512_mullo_epi32 _mm512_cvtepi32_ps,
    floats: _mm512_set1_ps _mm512_mul_ps _mm512_fmadd_ps _mm512_loadu_ps _mm512_storeu_ps,
}

kernel! {
    /// AVX2.
    avx2, "avx2,fma,f16c", 8, 2, __m256i,
    load: |codes| _mm256_cvtepu8_epi16(_mm_loadu_si128(codes.cast())),
    spread: |bytes| _mm256_set1_epi32(i32::from(bytes[0]) & 0xffff | i32::from(bytes[1]) << 16),
    add: |sum, left, right| _mm256_add_epi32(sum, _mm256_madd_epi16(left, right)),
    bytes: |signed| _mm256_cvtepi8_epi32(_mm_loadl_epi64(signed.cast())),
    halves: |half| _mm256_cvtph_ps(_mm_loadu_si128(half.cast())),
    integers: _mm256_set1_epi32 _mm256_add_epi32 _mm256_mullo_epi32 _mm256_cvtepi32_ps,
    floats: _mm256_set1_ps _mm256_mul_ps _mm256_fmadd_ps _mm256_loadu_ps _mm256_storeu_ps,
}
