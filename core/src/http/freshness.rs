//! For how long a fetched document may be kept.

use core::time::Duration;

use http::HeaderMap;
use http::header::{AGE, CACHE_CONTROL};

/// The bounds within which a document's headers count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Kept for no shorter, whatever the headers say: spares its host.
    pub(crate) least: Duration,
    /// Kept for that long when the headers say nothing.
    pub(crate) usual: Duration,
    /// Kept for no longer.
    pub(crate) most: Duration,
}

impl Bounds {
    /// For how long a document with these header fields may be kept (RFC 9111 section 4.2).
    pub(crate) fn lifetime(&self, headers: &HeaderMap) -> Duration {
        let directives = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
        let mut lifetime = self.usual;
        for directive in directives.flat_map(|value| value.split(',')) {
            let directive = directive.trim().to_ascii_lowercase();
            if directive == "no-store" || directive == "no-cache" {
                return self.least;
            }
            if let Some(seconds) = directive.strip_prefix("max-age=").and_then(|text| text.parse().ok()) {
                lifetime = Duration::from_secs(seconds);
            }
        }
        let age = headers.get(AGE).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
        lifetime.saturating_sub(Duration::from_secs(age)).clamp(self.least, self.most)
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use proptest::prelude::*;

    use http::HeaderValue;

    use super::*;

    #[test]
    fn documents_are_kept_as_their_headers_say_within_bounds() {
        let secs = Duration::from_secs;
        let bounds = Bounds { least: secs(300), usual: secs(3_600), most: secs(86_400) };
        let table = [
            ("", "", 3_600),
            ("max-age=600", "", 600),
            ("public, Max-Age=7200", "100", 7_100),
            ("max-age=600", "400", 300),
            ("max-age=0", "", 300),
            ("no-store, max-age=6000", "", 300),
            ("max-age=31536000", "", 86_400),
            ("max-age=99999999999999999999999", "x", 3_600),
        ];
        for (control, age, expected) in table {
            let mut headers = HeaderMap::new();
            if !control.is_empty() {
                headers.insert(CACHE_CONTROL, HeaderValue::from_static(control));
            }
            if !age.is_empty() {
                headers.insert(AGE, HeaderValue::from_static(age));
            }
            assert_eq!(bounds.lifetime(&headers), secs(expected), "{control} {age}");
        }
    }

    /// The lifetime under these two fields, empty ones left out.
    fn lifetime(bounds: &Bounds, control: &str, age: &str) -> Duration {
        let fields = [(CACHE_CONTROL, control), (AGE, age)];
        let given = fields.into_iter().filter(|(_, value)| !value.is_empty());
        let headers: HeaderMap = given.map(|(name, value)| (name, value.parse().expect("visible"))).collect();
        bounds.lifetime(&headers)
    }

    proptest! {
        #[test]
        fn lifetime_is_what_is_left_of_the_age_within_bounds_and_whatever_else_is_said(
            (least, usual, most) in (0..500_u64, 0..500_u64, 0..500_u64), max_age: u32, age in 0..2_000_u64, noise in "[ -~]{0,30}",
        ) {
            let secs = Duration::from_secs;
            let bounds = Bounds { least: secs(least), usual: secs(least + usual), most: secs(least + usual + most) };
            let within = bounds.least..=bounds.most;
            prop_assert!(within.contains(&lifetime(&bounds, &noise, &noise)), "{}", noise);
            let said = u64::from(max_age % 2_000);
            let expected = secs(said.saturating_sub(age)).clamp(bounds.least, bounds.most);
            for spelling in ["max-age=", "public, MAX-AGE=", "x=\"y\",\tmax-age="] {
                prop_assert_eq!(lifetime(&bounds, &format!("{spelling}{said}"), &format!("{age}")), expected);
            }
            prop_assert_eq!(lifetime(&bounds, &format!("max-age={said}, No-Store"), ""), bounds.least);
            prop_assert_eq!(lifetime(&bounds, "", ""), bounds.usual);
        }
    }
}
