//! What went wrong with TLS, in the words of people. Knows nothing about who is told.

use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// What a client tells of a handshake or a connection that failed; absent where TLS has nothing to do with it.
pub(crate) fn of_client(error: &io::Error) -> Option<String> {
    let sentence = match tls_error(error)? {
        Error::InvalidCertificate(error) => format!("the server's certificate {}", of_certificate(error)),
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the server wants a certificate from its clients, and none was shown".to_owned()
        }
        Error::AlertReceived(alert) => match of_alert(*alert) {
            Some(reason) => format!("the server does not accept our certificate: {reason}"),
            None => format!("the server broke the TLS handshake off: {alert:?}"),
        },
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the server does not speak TLS".to_owned()
        }
        error => format!("TLS failed: {error}"),
    };
    Some(sentence)
}

/// What a server tells, to its log.
pub(super) fn of_server(error: &io::Error) -> String {
    match tls_error(error) {
        Some(Error::InvalidCertificate(error)) => {
            format!("the client's certificate {}", of_certificate(error))
        }
        Some(Error::NoCertificatesPresented) => "the client showed no certificate".to_owned(),
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "the client does not speak TLS".to_owned()
        }
        Some(Error::AlertReceived(alert)) => format!("the client does not accept this server: {alert:?}"),
        _ => error.to_string(),
    }
}

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet".to_owned()
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "is of an unknown CA: of none that is trusted here".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let presented: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
            format!("is for another name: for {}, not for {}", presented.join(", "), expected.to_str())
        }
        error => format!("can't be accepted: {error}"),
    }
}

/// Of `DnsName("alto")` the name.
fn bare(presented: &str) -> &str {
    let inner = presented.split_once('(').and_then(|(_, inner)| inner.strip_suffix(')'));
    inner.unwrap_or(presented).trim_matches('"')
}

/// Where a server says what is wrong with a client's certificate.
fn of_alert(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::UnknownCA => "it is of an unknown CA",
        AlertDescription::CertificateExpired => "it has expired, or is not valid yet",
        AlertDescription::CertificateRevoked => "it was revoked",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => "it is not one that the server takes",
        _ => return None,
    })
}
