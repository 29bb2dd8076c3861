//! One error for the whole program.
//!
//! Its readers are the exit code, a retry loop and a tired person, so it answers three questions: what kind of
//! trouble ([`ErrorKind`]), what was attempted on what (`message` and `context`), and what caused it (`source`).
//! A bad *record* is never an error: it is a row in quarantine.

use std::fmt;

use crate::type_name::in_words;

/// What a caller can do about an error. Each kind has its own exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The command line or the environment is wrong.
    Usage,
    /// The project (TOML, SQL, CQL) is wrong.
    Project,
    /// The data is wrong: a balance that does not hold, a failed check, a landing file that changed.
    Data,
    /// Another run holds or has changed the lake.
    Conflict,
    /// A store or server cannot be reached or does not answer.
    Unavailable,
    /// A bug of ours.
    Bug,
}

impl ErrorKind {
    /// The process exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Usage => 2,
            ErrorKind::Project => 3,
            ErrorKind::Data => 4,
            ErrorKind::Conflict => 5,
            ErrorKind::Unavailable => 6,
            ErrorKind::Bug => 70,
        }
    }
}

/// What went wrong, on what, and why.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    context: Vec<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of everything that can stop a run.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), context: Vec::new(), source: None }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    pub fn project(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Project, message)
    }

    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Bug, message)
    }

    /// Keeps the cause, for the last lines of the report.
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what was being done when the error came up; the outermost step is read first.
    pub fn during(mut self, step: impl Into<String>) -> Self {
        self.context.push(step.into());
        self
    }

    /// Several at once, each on a line of its own, of the kind of the first; `None` where there is none. Of those that say
    /// no more than that a server is away, one is enough.
    pub fn together(errors: Vec<Error>) -> Option<Error> {
        let (away, mut told): (Vec<_>, Vec<_>) =
            errors.into_iter().partition(|error| error.kind == ErrorKind::Unavailable);
        told.extend(away.into_iter().take(1));
        if told.len() < 2 {
            return told.pop();
        }
        let lines = told.iter().map(|error| format!("\n  {error}"));
        let message = format!("{} things stand against it:{}", told.len(), lines.collect::<String>());
        told.first().map(|first| Error::new(first.kind, message))
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message without context and causes.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in self.context.iter().rev() {
            write!(f, "{step}: ")?;
        }
        write!(f, "{}", self.message)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.source {
            Some(source) => Some(source.as_ref()),
            None => None,
        }
    }
}

/// Adds the step that failed to a result.
pub trait During<T> {
    fn during(self, step: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> During<T> for std::result::Result<T, E> {
    fn during(self, step: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| error.into().during(step()))
    }
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        let text = error.to_string();
        let missing = CREDENTIALS.iter().find(|(place, _)| text.contains(place));
        match missing {
            Some((_, variables)) => {
                Error::unavailable(format!("no credentials for the object store: set {variables}"))
                    .because(error)
            }
            None => Error::unavailable("object store request failed").because(error),
        }
    }
}

/// Where clouds are asked for credentials when none are given, which answers on their own machines only; and what gives
/// them.
const CREDENTIALS: [(&str, &str); 4] = [
    (
        "169.254.169.254/metadata/identity",
        "`AZURE_STORAGE_ACCOUNT_NAME` and `AZURE_STORAGE_ACCOUNT_KEY` (or `AZURE_STORAGE_SAS_KEY`)",
    ),
    ("169.254.169.254/computeMetadata", GOOGLE_CREDENTIALS),
    ("metadata.google.internal", GOOGLE_CREDENTIALS),
    (
        "169.254.169.254",
        "`AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` (and `AWS_REGION`, `AWS_ENDPOINT` where needed)",
    ),
];

const GOOGLE_CREDENTIALS: &str = "`GOOGLE_APPLICATION_CREDENTIALS` or `GOOGLE_SERVICE_ACCOUNT`, a key file";

impl From<datafusion::error::DataFusionError> for Error {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        use datafusion::error::DataFusionError as E;
        let kind = match error.find_root() {
            E::SQL(..) | E::Plan(_) | E::SchemaError(..) => ErrorKind::Project,
            E::ObjectStore(_) | E::IoError(_) => ErrorKind::Unavailable,
            E::ResourcesExhausted(_) => ErrorKind::Unavailable,
            E::ArrowError(..) | E::Execution(_) => ErrorKind::Data,
            _ => ErrorKind::Bug,
        };
        Error::new(kind, message_of(&error))
    }
}

/// What a query's error says, in our words where we have them, without the library's inner names and its backtrace.
pub fn message_of(error: &datafusion::error::DataFusionError) -> String {
    use datafusion::common::SchemaError;
    use datafusion::error::DataFusionError as E;
    use datafusion::sql::sqlparser::parser::ParserError;
    let root = error.find_root();
    let text = match root {
        E::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let known: Vec<&str> = valid_fields.iter().map(|field| field.name()).collect();
                return no_such_column(&field.flat_name(), field.name(), &known);
            }
            other => other.to_string(),
        },
        E::SQL(parser, _) => match parser.as_ref() {
            ParserError::ParserError(text) | ParserError::TokenizerError(text) => text.clone(),
            ParserError::RecursionLimitExceeded => "it is nested too deeply".to_owned(),
        },
        E::ResourcesExhausted(text) => {
            format!("more memory is needed than `limits.memory_bytes` allows, raise it: {text}")
        }
        other => other.strip_backtrace(),
    };
    const PREFIXES: [&str; 5] = [
        "Error during planning: ",
        "Execution error: ",
        "This feature is not implemented: ",
        "Arrow error: ",
        "Schema error: ",
    ];
    let mut text = text.as_str();
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest;
    }
    let text = in_words(&text.replace("medallion.", ""));
    match text.strip_prefix("table '").and_then(|rest| rest.strip_suffix("' not found")) {
        Some(table) => format!("there is no table `{table}`"),
        None => text,
    }
}

fn no_such_column(written: &str, name: &str, known: &[&str]) -> String {
    use datafusion::common::utils::datafusion_strsim::levenshtein;
    let most = (name.len() / 3).max(2);
    let mut near: Vec<(usize, &str)> = known
        .iter()
        .map(|known| (levenshtein(name, known), *known))
        .filter(|(far, _)| *far <= most)
        .collect();
    near.sort_unstable();
    near.dedup();
    let near: Vec<String> = near.iter().take(3).map(|(_, known)| format!("`{known}`")).collect();
    match near.as_slice() {
        [] => format!("there is no column `{written}`"),
        near => format!("there is no column `{written}`; there is {}", near.join(", ")),
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Error::new(ErrorKind::Data, "columnar computation failed").because(error)
    }
}

impl From<parquet::errors::ParquetError> for Error {
    fn from(error: parquet::errors::ParquetError) -> Self {
        Error::new(ErrorKind::Unavailable, "parquet file could not be read or written").because(error)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Error::unavailable("input or output failed").because(error)
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Error::bug("json could not be read or written").because(error)
    }
}

impl From<tokio::task::JoinError> for Error {
    fn from(error: tokio::task::JoinError) -> Self {
        Error::bug("a background task ended early").because(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_from_the_outermost_step_to_the_cause() {
        let error = Error::unavailable("commit failed")
            .because("disk full")
            .during("writing `bronze.users`")
            .during("run 7");
        assert_eq!(error.to_string(), "run 7: writing `bronze.users`: commit failed: disk full");
        assert_eq!(error.kind().exit_code(), 6);
    }

    #[test]
    fn several_are_told_at_once() {
        assert!(Error::together(Vec::new()).is_none());
        let one = Error::together(vec![Error::data("a"), Error::data("b").during("c")]).unwrap();
        assert_eq!(one.to_string(), "2 things stand against it:\n  a\n  c: b");
        let away = || Error::unavailable("away");
        assert_eq!(Error::together(vec![away(), away()]).unwrap().to_string(), "away");
        let both = Error::together(vec![away(), Error::conflict("ahead"), away()]).unwrap();
        assert_eq!(both.kind(), ErrorKind::Conflict);
        assert!(both.to_string().ends_with("\n  ahead\n  away"), "{both}");
    }

    #[test]
    fn missing_credentials_are_said_so() {
        let asked = |place: &str| {
            let source = format!("Error performing PUT http://{place}/ in 1s: connection refused").into();
            Error::from(object_store::Error::Generic { store: "S3", source }).to_string()
        };
        for (place, variable) in [
            ("169.254.169.254/latest/api/token", "AWS_ACCESS_KEY_ID"),
            ("169.254.169.254/metadata/identity/oauth2/token", "AZURE_STORAGE_ACCOUNT_KEY"),
            ("metadata.google.internal/computeMetadata/v1", "GOOGLE_SERVICE_ACCOUNT"),
        ] {
            let told = asked(place);
            assert!(
                told.starts_with("no credentials for the object store: set ") && told.contains(variable),
                "{told}"
            );
        }
        assert!(asked("s3.example.org/bucket").starts_with("object store request failed"));
    }

    #[test]
    fn an_unknown_column_is_told_with_the_nearest_names() {
        let told = no_such_column("u.nmae", "nmae", &["site", "name", "named", "opened", "name"]);
        assert_eq!(told, "there is no column `u.nmae`; there is `name`");
        assert_eq!(no_such_column("x", "x", &["opened", "amount"]), "there is no column `x`");
    }
}
