// SPDX-License-Identifier: MIT OR Apache-2.0
//! The grammar that records of the host and `@` lines of the guest share: a kind, then `key=value`
//! pairs, separated by single spaces.

/// A line taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// First word.
    pub kind: &'a str,
    fields: Vec<(&'a str, &'a str)>,
}

/// Why a line is no record: what is wrong with it.
pub type LineError = String;

impl<'a> Line<'a> {
    /// Takes `text` apart.
    ///
    /// # Errors
    /// When it is empty, a field has no `=`, or a key appears twice.
    pub fn parse(text: &'a str) -> Result<Self, LineError> {
        let mut words = text.split(' ');
        let kind = words
            .next()
            .filter(|kind| is_name(kind))
            .ok_or("the first word is no name")?;
        let mut fields: Vec<(&str, &str)> = Vec::new();
        for word in words {
            let (key, value) = word
                .split_once('=')
                .filter(|(key, value)| is_name(key) && !value.is_empty())
                .ok_or_else(|| format!("'{word}' is no key=value"))?;
            if fields.iter().any(|(other, _)| *other == key) {
                return Err(format!("'{key}' appears twice"));
            }
            fields.push((key, value));
        }
        Ok(Self { kind, fields })
    }

    /// Value of `key`.
    ///
    /// # Errors
    /// When there is none.
    pub fn text(&self, key: &str) -> Result<&'a str, LineError> {
        self.fields
            .iter()
            .find(|(own, _)| *own == key)
            .map(|(_, value)| *value)
            .ok_or_else(|| format!("'{key}' is missing"))
    }

    /// Number behind `key`, decimal or with `0x`.
    ///
    /// # Errors
    /// When it is missing, no number, or larger than 64 bits.
    pub fn number(&self, key: &str) -> Result<u64, LineError> {
        let text = self.text(key)?;
        let number = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        number.map_err(|_| format!("'{key}={text}' is no number"))
    }

    /// Truth value behind `key`: `0` or `1`.
    ///
    /// # Errors
    /// When it is missing or another value.
    pub fn flag(&self, key: &str) -> Result<bool, LineError> {
        match self.text(key)? {
            "0" => Ok(false),
            "1" => Ok(true),
            other => Err(format!("'{key}={other}' is neither 0 nor 1")),
        }
    }
}

fn is_name(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_alphabetic())
        && word
            .chars()
            .all(|one| one.is_ascii_alphanumeric() || "_-.".contains(one))
}

#[cfg(test)]
mod tests {
    use super::Line;

    #[test]
    fn fields_are_found_by_key() {
        let line = Line::parse("psc tsc=17 gpa=0x200000 op=shared ok=1").expect("a record");
        assert_eq!(line.kind, "psc");
        assert_eq!(line.number("tsc"), Ok(17));
        assert_eq!(line.number("gpa"), Ok(0x20_0000));
        assert_eq!(line.text("op"), Ok("shared"));
        assert_eq!(line.flag("ok"), Ok(true));
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            " psc",
            "psc ",
            "psc  a=1",
            "psc a",
            "psc =1",
            "psc a=",
            "psc a=1 a=2",
            "1psc",
            "[host] hello",
        ] {
            assert!(Line::parse(text).is_err(), "'{text}'");
        }
        let line = Line::parse("x a=zz b=2 c=18446744073709551616").expect("a record");
        assert!(line.number("a").is_err());
        assert!(line.flag("b").is_err());
        assert!(line.number("c").is_err());
        assert!(line.text("d").is_err());
    }
}
