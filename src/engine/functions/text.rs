//! `fold` and `json_list`.

use std::sync::Arc;

use arrow::array::{AsArray, ListBuilder, StringViewArray, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

/// The first argument as text, null where it is null.
fn texts(args: &ScalarFunctionArgs) -> Result<StringViewArray> {
    let array = args.args[0].to_array(args.number_rows)?;
    let array = cast(&array, &DataType::Utf8View)?;
    Ok(array.as_string_view().clone())
}

/// `fold(text)`: trimmed of Unicode white space, in lower case.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Fold {
    signature: Signature,
}

impl Default for Fold {
    fn default() -> Self {
        Self { signature: Signature::string(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Fold {
    fn name(&self) -> &'static str {
        "fold"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let texts = texts(&args)?;
        // most landed words are folded already: then nothing is copied
        let is_folded = |text: &str| {
            text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase())
                && text.trim().len() == text.len()
        };
        if texts.iter().flatten().all(is_folded) {
            return Ok(ColumnarValue::Array(Arc::new(texts)));
        }
        let folded: StringViewArray =
            texts.iter().map(|text| text.map(|text| text.trim().to_lowercase())).collect();
        Ok(ColumnarValue::Array(Arc::new(folded)))
    }
}

/// `json_list(text)`: the strings of a JSON array.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct JsonList {
    signature: Signature,
}

impl Default for JsonList {
    fn default() -> Self {
        Self { signature: Signature::string(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for JsonList {
    fn name(&self) -> &'static str {
        "json_list"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new("element", DataType::Utf8View, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let element = Field::new("element", DataType::Utf8View, true);
        let mut lists = ListBuilder::new(StringViewBuilder::new()).with_field(element);
        for text in texts(&args)?.iter() {
            match text.and_then(|text| serde_json::from_str::<Vec<String>>(text).ok()) {
                Some(words) => {
                    for word in words {
                        lists.values().append_value(word);
                    }
                    lists.append(true);
                }
                None => lists.append(false),
            }
        }
        Ok(ColumnarValue::Array(Arc::new(lists.finish())))
    }
}
