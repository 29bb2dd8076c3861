//! `decimal_divide`: division that is exact until its one rounding.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, i256};
use arrow::datatypes::{Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

/// Digits of the result: what the contract gives ratios, averages and converted amounts.
const PRECISION: u8 = 18;

/// `decimal_divide(a, b, scale)`: half away from zero, null where `b` is 0 or an argument is null.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct DecimalDivide {
    signature: Signature,
}

impl Default for DecimalDivide {
    fn default() -> Self {
        Self { signature: Signature::any(3, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for DecimalDivide {
    fn name(&self) -> &'static str {
        "decimal_divide"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        plan_err!("`decimal_divide` needs its scale as a literal")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        for field in &args.arg_fields[..2] {
            let data_type = field.data_type();
            if !data_type.is_integer() && !matches!(data_type, DataType::Decimal128(_, _)) {
                return plan_err!("`decimal_divide` divides decimals and integers, not `{data_type}`");
            }
        }
        let scale = match args.scalar_arguments[2] {
            Some(ScalarValue::Int64(Some(scale))) if (0..=18).contains(scale) => *scale as i8,
            _ => return plan_err!("`decimal_divide` needs a literal scale from 0 to 18"),
        };
        Ok(Arc::new(Field::new(self.name(), DataType::Decimal128(PRECISION, scale), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let DataType::Decimal128(_, scale) = *args.return_field.data_type() else {
            return exec_err!("`decimal_divide` returns a decimal");
        };
        let numerators = decimals(args.args[0].to_array(args.number_rows)?)?;
        let denominators = decimals(args.args[1].to_array(args.number_rows)?)?;
        let shift = i32::from(scale) + i32::from(denominators.scale()) - i32::from(numerators.scale());
        let mut quotients = Vec::with_capacity(args.number_rows);
        for row in 0..args.number_rows {
            let known = numerators.is_valid(row) && denominators.is_valid(row);
            quotients.push(match known {
                true => divide(numerators.value(row), denominators.value(row), shift)?,
                false => None,
            });
        }
        let array = Decimal128Array::from(quotients).with_precision_and_scale(PRECISION, scale)?;
        Ok(ColumnarValue::Array(Arc::new(array)))
    }
}

fn decimals(array: ArrayRef) -> Result<Decimal128Array> {
    let array = match array.data_type() {
        DataType::Decimal128(_, _) => array,
        _ => cast(&array, &DataType::Decimal128(20, 0))?,
    };
    Ok(array.as_primitive::<Decimal128Type>().clone())
}

/// `a × 10^shift ÷ b`, rounded half away from zero.
fn divide(a: i128, b: i128, shift: i32) -> Result<Option<i128>> {
    if b == 0 {
        return Ok(None);
    }
    let too_large = || format!("a quotient does not fit decimal({PRECISION})");
    let ten = i256::from_i128(10);
    let power = ten.wrapping_pow(shift.unsigned_abs());
    let (a, b) = (i256::from_i128(a), i256::from_i128(b));
    let (a, b) = match shift >= 0 {
        true => (a.checked_mul(power), Some(b)),
        false => (Some(a), b.checked_mul(power)),
    };
    let (Some(a), Some(b)) = (a, b) else {
        return exec_err!("{}", too_large());
    };
    let quotient = a.wrapping_div(b);
    let twice_rest = a.wrapping_rem(b).wrapping_abs().wrapping_mul(i256::from_i128(2));
    let is_negative = (a < i256::ZERO) != (b < i256::ZERO);
    let rounded = match twice_rest >= b.wrapping_abs() {
        true if is_negative => quotient.wrapping_sub(i256::ONE),
        true => quotient.wrapping_add(i256::ONE),
        false => quotient,
    };
    match rounded.to_i128() {
        Some(value) if value.unsigned_abs() < 10u128.pow(u32::from(PRECISION)) => Ok(Some(value)),
        _ => exec_err!("{}", too_large()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_away_from_zero() {
        for (a, b, shift, expected) in [
            (1, 2, 0, Some(1)),
            (-1, 2, 0, Some(-1)),
            (1, -2, 0, Some(-1)),
            (-1, -2, 0, Some(1)),
            (1, 3, 6, Some(333_333)),
            (2, 3, 6, Some(666_667)),
            (49, 100, 0, Some(0)),
            (5_000_000, 2, -6, Some(3)),
            (1, 0, 0, None),
        ] {
            assert_eq!(divide(a, b, shift).unwrap(), expected, "{a} / {b}, 10^{shift}");
        }
        assert!(divide(i128::MAX, 1, 6).is_err());
    }
}
