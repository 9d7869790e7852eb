//! What tests of machines share: tables of what follows from every event in every state.

use std::format;
use std::string::String;
use std::vec::Vec;

/// Looks at every cell of a table, and says which of them are wrong.
pub(crate) fn check<const N: usize>(
    (states, events): ([&str; N], &[&str]),
    table: &[(&str, [&str; N])],
    follows: impl Fn(&str, &str) -> String,
) {
    assert_eq!(table.iter().map(|(event, _)| *event).collect::<Vec<_>>(), events, "every event has its row");
    let mut wrong = Vec::new();
    for (event, expected) in table {
        for (state, expected) in states.into_iter().zip(expected) {
            let told = follows(state, event);
            if told != *expected {
                wrong.push(format!("{event} while {state}: {told:?}, and not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
