//! An error as one line for a person: what happened, and why, cause by cause.

use std::error::Error;

/// `error` and its causes, joined by ": ". A cause that its parent's text already holds is
/// not repeated; libraries often print their source and give it too.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("can't do it")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("the disk\nis full"));
        assert_eq!(chain(&error), "can't do it: the disk is full");
    }
}
