//! How long a certificate is good.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

/// What is to be said of a certificate's time; `None`: nothing.
pub(crate) fn trouble(certificate: &CertificateDer<'_>, now: SystemTime) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let time = parsed.validity();
    let (begin, end) = (seconds(time.not_before), seconds(time.not_after));
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    if now < begin {
        Some(format!(
            "it is not good before {}: clients refuse it until then (is this machine's clock right?)",
            day(time.not_before)
        ))
    } else if now > end {
        Some(format!("it ended on {}: clients refuse it, put a new one there", day(time.not_after)))
    } else if end - now < SOON.as_secs() {
        Some(format!("it ends on {}: put a new one there before that", day(time.not_after)))
    } else {
        None
    }
}

/// Since 1970; earlier is 0.
fn seconds(time: ASN1Time) -> u64 {
    u64::try_from(time.timestamp()).unwrap_or_default()
}

fn day(time: ASN1Time) -> String {
    time.to_datetime().date().to_string()
}

/// What renews certificates by itself does so weeks before they end.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    #[test]
    fn certificate_is_told_of_before_its_time_near_its_end_and_after_it() {
        let mut params = CertificateParams::new(["relay.test".to_owned()]).expect("a name");
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 4, 1);
        let key = KeyPair::generate().expect("a key");
        let made = params.self_signed(&key).expect("a certificate");
        let day = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600 + days * 24 * 3600);
        let said = |at: SystemTime| trouble(made.der(), at);
        assert!(said(day(0) - Duration::from_secs(1)).is_some_and(|text| text.contains("not good before 2026-01-01")));
        assert_eq!(said(day(0)), None);
        assert_eq!(said(day(76)), None);
        assert!(said(day(76) + Duration::from_secs(1)).is_some_and(|text| text.contains("ends on 2026-04-01")));
        assert!(said(day(90) + Duration::from_secs(1)).is_some_and(|text| text.contains("ended on 2026-04-01")));
        assert!(said(SystemTime::UNIX_EPOCH).is_some());
        assert_eq!(trouble(&CertificateDer::from_slice(b"nonsense"), day(0)), None);
    }
}
