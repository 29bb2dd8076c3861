//! What the driver wraps several deep, in the words of whom it met: the node, or the system.

use scylla::errors::{
    ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, ExecutionError,
    MetadataError, NewSessionError, PrepareError, RequestAttemptError, UseKeyspaceError,
};

/// Why no session came about.
pub fn of_session(error: &NewSessionError) -> String {
    match error {
        NewSessionError::FailedToResolveAnyHostname(hosts) => {
            format!("nobody knows the name {}", hosts.join(", "))
        }
        NewSessionError::MetadataError(MetadataError::ConnectionPoolError(pool)) => of_pool(pool),
        error => error.to_string(),
    }
}

/// Whether a node wants to know who we are, and nobody has told us.
pub fn is_anonymous(error: &NewSessionError) -> bool {
    let NewSessionError::MetadataError(MetadataError::ConnectionPoolError(ConnectionPoolError::Broken {
        last_connection_error: ConnectionError::ConnectionSetupRequestError(setup),
        ..
    })) = error
    else {
        return false;
    };
    matches!(setup.error, ConnectionSetupRequestErrorKind::MissingAuthentication)
}

/// Why a request was not answered with rows.
pub fn of_request(error: &ExecutionError) -> String {
    match error {
        ExecutionError::PrepareError(error) => of_preparing(error),
        ExecutionError::ConnectionPoolError(pool) => of_pool(pool),
        ExecutionError::LastAttemptError(attempt) => of_attempt(attempt),
        error => error.to_string(),
    }
}

/// Why a statement was not prepared.
fn of_preparing(error: &PrepareError) -> String {
    match error {
        PrepareError::ConnectionPoolError(pool) => of_pool(pool),
        PrepareError::AllAttemptsFailed { first_attempt } => of_attempt(first_attempt),
        error => error.to_string(),
    }
}

/// Why a keyspace is not used.
pub fn of_using(error: &UseKeyspaceError) -> String {
    match error {
        UseKeyspaceError::RequestError(attempt) => of_attempt(attempt),
        error => error.to_string(),
    }
}

fn of_pool(error: &ConnectionPoolError) -> String {
    let ConnectionPoolError::Broken { last_connection_error, .. } = error else {
        return error.to_string();
    };
    match last_connection_error {
        ConnectionError::ConnectTimeout => "no answer in time".to_owned(),
        ConnectionError::ConnectionSetupRequestError(setup) => match &setup.error {
            ConnectionSetupRequestErrorKind::DbError(error, message) => of_database(error, message),
            error => error.to_string(),
        },
        error => error.to_string(),
    }
}

fn of_attempt(error: &RequestAttemptError) -> String {
    match error {
        RequestAttemptError::DbError(error, message) => of_database(error, message),
        error => error.to_string(),
    }
}

/// Most of what a node says is in its message, what kind of trouble it is in the error.
fn of_database(error: &DbError, message: &str) -> String {
    match error {
        _ if message.is_empty() => error.to_string(),
        DbError::Invalid | DbError::SyntaxError | DbError::Unauthorized | DbError::AuthenticationError => {
            message.to_owned()
        }
        error => format!("{error} ({message})"),
    }
}
