//! Other people's text on our pages and in our log: names of clients, a provider's words and the like.

use alloc::string::String;

/// `text` as one line of at most `max` characters that shows what it says: control, bidirectional and invisible
/// characters are gone, runs of white space are one space. Escaping is the page's business.
pub(crate) fn clean(text: &str, max: usize) -> String {
    let mut out = String::new();
    let mut count = 0;
    for word in text.split_whitespace() {
        let mut visible = word.chars().filter(|character| !is_deceptive(*character)).peekable();
        if visible.peek().is_none() {
            continue;
        }
        let space = (count > 0).then_some(' ');
        for character in space.into_iter().chain(visible) {
            if count == max {
                out.push('…');
                return out;
            }
            out.push(character);
            count += 1;
        }
    }
    out
}

/// Characters that change how the text around them reads, or that cannot be seen.
fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tricks_are_stripped_and_length_is_capped() {
        assert_eq!(clean("Claude\u{202e}edualC\u{0}\u{200b}", 40), "ClaudeedualC");
        assert_eq!(clean("  a \n\t b  ", 40), "a b");
        assert_eq!(clean("abcdef", 3), "abc…");
        assert_eq!(clean("abc", 3), "abc");
        assert_eq!(clean("\u{200b} \u{202e}", 3), "");
        assert_eq!(clean("日本語 クライアント", 40), "日本語 クライアント");
    }

    proptest! {
        #[test]
        fn what_is_left_is_short_and_visible(text in ".*", max in 1_usize..50) {
            let out = clean(&text, max);
            prop_assert!(out.chars().count() <= max + 1);
            prop_assert!(!out.chars().any(is_deceptive));
            prop_assert_eq!(clean(&out, max + 1), out.as_str(), "what is clean stays as it is");
            let mut words = out.split(' ');
            prop_assert!(out.is_empty() || words.all(|word| !word.is_empty()), "{:?}", out);
            let kept = out.strip_suffix('…').unwrap_or(&out);
            prop_assert!(clean(&text, usize::MAX).starts_with(kept), "the longer one begins as the shorter one");
        }
    }
}
