//! `uniform`: reproducible pseudo-random numbers for generated data.

use std::sync::Arc;

use arrow::array::{AsArray, Float64Array};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

/// `uniform(seed, n, stream)`: a number in [0, 1) that depends on the three integers only.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Uniform {
    signature: Signature,
}

impl Default for Uniform {
    fn default() -> Self {
        let integers = vec![DataType::Int64, DataType::Int64, DataType::Int64];
        Self { signature: Signature::exact(integers, Volatility::Immutable) }
    }
}

/// Finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A number in [0, 1) with 53 random bits.
pub fn uniform(seed: i64, n: i64, stream: i64) -> f64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let seed = mix(seed.cast_unsigned().wrapping_add(GOLDEN));
    let stream = mix(seed ^ stream.cast_unsigned().wrapping_mul(GOLDEN));
    let bits = mix(stream.wrapping_add(n.cast_unsigned().wrapping_mul(GOLDEN)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

impl ScalarUDFImpl for Uniform {
    fn name(&self) -> &'static str {
        "uniform"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [seeds, ns, streams] = [0, 1, 2].map(|at| arrays[at].as_primitive::<Int64Type>());
        let numbers =
            seeds.iter().zip(ns).zip(streams).map(|((seed, n), stream)| Some(uniform(seed?, n?, stream?)));
        Ok(ColumnarValue::Array(Arc::new(Float64Array::from_iter(numbers))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_even_and_independent() {
        let mean = |stream| (0..10_000).map(|n| uniform(7, n, stream)).sum::<f64>() / 1e4;
        assert!((mean(1) - 0.5).abs() < 0.02 && (mean(2) - 0.5).abs() < 0.02);
        let product: f64 = (0..10_000).map(|n| uniform(7, n, 1) * uniform(7, n, 2)).sum();
        assert!((product / 1e4 - 0.25).abs() < 0.02);
        assert_eq!(uniform(1, 2, 3), uniform(1, 2, 3));
    }
}
