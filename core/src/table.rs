//! What tests of machines share: tables of what follows from every event in every state.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::format;
use std::string::String;
use std::vec::Vec;

/// A list of an enum's variants by name, and a function that names a value's. A variant that is new does not compile
/// before it stands here, and then fails every [`Table`] of the list that neither has a row nor a reason for it.
macro_rules! kinds {
    ($vis:vis $all:ident, $of:ident: $type:ty, $prefix:literal { $($kind:ident),+ $(,)? }) => {
        $vis const $all: &[&str] = &[$(concat!($prefix, stringify!($kind))),+];

        $vis const fn $of(value: &$type) -> &'static str {
            type Of = $type;
            match value {
                $(Of::$kind { .. } => concat!($prefix, stringify!($kind)),)+
            }
        }
    };
}
pub(crate) use kinds;

/// Time passes: no event, and in every table.
pub(crate) const TIME: &[&str] = &["time"];

std::thread_local! {
    /// The kinds of what was handed in.
    static GIVEN: RefCell<BTreeSet<&'static str>> = const { RefCell::new(BTreeSet::new()) };
}

/// Something of this kind is handed in: rigs say so where they do it, so that a table has no row in name alone.
pub(crate) fn given(kind: &'static str) {
    GIVEN.with_borrow_mut(|given| given.insert(kind));
}

/// A machine's table.
pub(crate) struct Table<'a, const N: usize> {
    /// Each state's name, and how the machine looks in it.
    pub(crate) states: [(&'a str, &'a str); N],
    /// What follows each event, in the order of the states.
    pub(crate) rows: &'a [(&'a str, [&'a str; N])],
    /// All that can be handed in, as [`kinds`] lists it.
    pub(crate) kinds: &'a [&'a [&'a str]],
    /// What of that has no row, and why.
    pub(crate) spared: &'a [(&'a str, &'a [&'a str])],
}

impl<const N: usize> Table<'_, N> {
    /// Looks at every state and every cell, and says what is wrong: a state that is not reached, what follows, and the
    /// kinds that are without a row.
    pub(crate) fn check<B>(
        &self,
        reach: impl Fn(&str) -> B,
        look: impl Fn(&mut B) -> String,
        give: impl Fn(B, &str) -> String,
    ) {
        let mut given = BTreeSet::new();
        let mut wrong = Vec::new();
        for (state, looks) in self.states {
            let seen = look(&mut reach(state));
            if seen != looks {
                wrong.push(format!("the way to {state}: {seen:?}, and not {looks:?}"));
            }
        }
        let states = self.states.map(|(state, _)| state);
        wrong.extend(cells(states, self.rows, |state, event| {
            let bench = reach(state);
            let (told, more) = recorded(|| give(bench, event));
            given.extend(more);
            told
        }));
        wrong.extend(uncovered(&given, self.kinds, self.spared));
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

/// What came out, in its order, and how often where that is more than once in a row; `.`: nothing.
pub(crate) fn told(said: &[String]) -> String {
    let runs = said.chunk_by(|one, next| one == next).map(|run| match run {
        [one] => one.clone(),
        [one, ..] => format!("{one} ×{}", run.len()),
        [] => String::new(),
    });
    let told: Vec<String> = runs.collect();
    if told.is_empty() { ".".into() } else { told.join(", ") }
}

/// What `give` says, and the kinds of what it handed in.
pub(crate) fn recorded<T>(give: impl FnOnce() -> T) -> (T, BTreeSet<&'static str>) {
    GIVEN.take();
    let told = give();
    (told, GIVEN.take())
}

/// What is wrong with the kinds that were handed in: each is, or has a reason why not.
pub(crate) fn uncovered(given: &BTreeSet<&str>, kinds: &[&[&str]], spared: &[(&str, &[&str])]) -> Vec<String> {
    let spared: BTreeSet<&str> = spared.iter().flat_map(|(_, kinds)| kinds.iter().copied()).collect();
    let all: BTreeSet<&str> = kinds.iter().flat_map(|kinds| kinds.iter().copied()).collect();
    let told = given | &spared;
    let mut wrong: Vec<String> =
        all.difference(&told).map(|kind| format!("{kind} has no row, and no reason")).collect();
    wrong.extend(given.intersection(&spared).map(|kind| format!("{kind} has a row, and a reason for none")));
    wrong.extend(told.difference(&all).map(|kind| format!("{kind} is of no list")));
    wrong
}

/// Looks at every cell of what is no machine's: an answer in each row, an answer in each column.
pub(crate) fn every_cell<const N: usize>(
    states: [&str; N],
    table: &[(&str, [&str; N])],
    follows: impl FnMut(&str, &str) -> String,
) {
    let wrong = cells(states, table, follows);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The cells that are wrong; what cannot be is left blank, as `-`.
fn cells<const N: usize>(
    states: [&str; N],
    table: &[(&str, [&str; N])],
    mut follows: impl FnMut(&str, &str) -> String,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for (event, expected) in table {
        for (state, expected) in states.into_iter().zip(expected).filter(|(_, expected)| **expected != "-") {
            let told = follows(state, event);
            if told != *expected {
                wrong.push(format!("{event} while {state}: {told:?}, and not {expected:?}"));
            }
        }
    }
    wrong
}
