//! What a diff consists of, counted line by line, so that nothing of it is left out in silence.
//!
//! The library that parses diffs passes over what it cannot place. Here every line is accounted for: a hunk
//! has as many lines as its header says, nothing stands between a header and its hunks, and a git-style
//! diff has a `diff --git` line for every file. What the two do not agree on is refused.

/// One file's part of a diff.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// How many hunks it has.
    pub hunks: usize,
    /// Whether its header says that the file is to be removed.
    pub removes: bool,
    /// Whether anything is to be changed at all.
    pub changes: bool,
}

/// What follows.
enum Expect {
    /// Text before the first file, or a mail's signature after the last hunk.
    Anything,
    /// The extended headers of git.
    Header,
    /// The first hunk.
    Hunk,
    /// Another hunk, or another file.
    HunkOrFile,
    /// The lines of a binary patch.
    Binary,
}

const HEADERS: [&str; 11] = [
    "index ",
    "old mode ",
    "new mode ",
    "new file mode ",
    "deleted file mode ",
    "similarity index ",
    "dissimilarity index ",
    "rename from ",
    "rename to ",
    "copy from ",
    "copy to ",
];

/// The parts of a diff.
///
/// # Errors
/// What is wrong, with the number of the line, from 1.
pub fn parts(diff: &[u8]) -> Result<Vec<Part>, String> {
    let lines: Vec<&[u8]> = diff.split(|byte| *byte == b'\n').collect();
    let mut parts: Vec<Part> = Vec::new();
    let (mut expect, mut is_git, mut has_names) = (Expect::Anything, false, false);
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at].strip_suffix(b"\r").unwrap_or(lines[at]);
        let text = String::from_utf8_lossy(line);
        let is_last = at + 1 == lines.len();
        let wrong = |what: &str| Err(format!("line {}: {what}", at + 1));
        let names_follow = text.starts_with("--- ")
            && lines.get(at + 1).is_some_and(|next| next.starts_with(b"+++ "));
        if text.starts_with("diff --git ") {
            finish(&parts, at)?;
            parts.push(Part::default());
            (expect, is_git, has_names) = (Expect::Header, true, false);
        } else if names_follow && !matches!(expect, Expect::Hunk | Expect::Binary) {
            if is_git && (has_names || !matches!(expect, Expect::Header)) {
                return wrong("a file without its `diff --git` line");
            }
            if !is_git {
                parts.push(Part::default());
            }
            (expect, has_names) = (Expect::Hunk, true);
            at += 1;
        } else {
            match expect {
                Expect::Anything | Expect::Binary => {}
                Expect::Header if HEADERS.iter().any(|header| text.starts_with(header)) => {
                    if let Some(part) = parts.last_mut() {
                        part.removes |= text.starts_with("deleted file mode ");
                        part.changes |=
                            !text.starts_with("index ") && !text.contains("similarity index ");
                    }
                }
                Expect::Header
                    if text == "GIT binary patch" || text.starts_with("Binary files ") =>
                {
                    if let Some(part) = parts.last_mut() {
                        part.changes = true;
                    }
                    expect = Expect::Binary;
                }
                Expect::Hunk | Expect::HunkOrFile if text.starts_with("@@ ") => {
                    at = hunk(&lines, at)?;
                    if let Some(part) = parts.last_mut() {
                        part.hunks += 1;
                        part.changes = true;
                    }
                    expect = Expect::HunkOrFile;
                    continue;
                }
                Expect::HunkOrFile if text == "-- " => expect = Expect::Anything,
                Expect::Header | Expect::HunkOrFile if text.is_empty() && is_last => {}
                // A series of mails has blank lines and text between one file and the next.
                Expect::HunkOrFile if text.is_empty() && only_blank(&lines[at..]) => {}
                _ => return wrong("it belongs to no file and no hunk"),
            }
        }
        at += 1;
    }
    if matches!(expect, Expect::Hunk) {
        return Err(format!("line {}: hunks are missing", lines.len()));
    }
    finish(&parts, lines.len())?;
    Ok(parts)
}

/// A part that is over must say something.
fn finish(parts: &[Part], at: usize) -> Result<(), String> {
    match parts.last() {
        Some(part) if !part.changes => Err(format!("line {at}: a file with nothing to change")),
        _ => Ok(()),
    }
}

fn only_blank(lines: &[&[u8]]) -> bool {
    lines.iter().all(|line| line.iter().all(u8::is_ascii_whitespace))
}

/// Passes over a hunk; answers where it ends.
fn hunk(lines: &[&[u8]], at: usize) -> Result<usize, String> {
    let head = String::from_utf8_lossy(lines[at]).into_owned();
    let wrong = |what: &str| format!("line {}: {what}", at + 1);
    let mut ranges = head.split(' ').skip(1);
    let mut count = |sign: char| {
        let range = ranges.next()?.strip_prefix(sign)?.to_owned();
        match range.split_once(',') {
            Some((_, count)) => count.parse::<usize>().ok(),
            None => range.parse::<usize>().ok().map(|_| 1),
        }
    };
    let (old, new) = (count('-'), count('+'));
    let (Some(mut old), Some(mut new)) = (old, new) else {
        return Err(wrong("no header of a hunk"));
    };
    let mut next = at + 1;
    while old > 0 || new > 0 {
        let Some(line) = lines.get(next) else {
            return Err(wrong("the hunk is shorter than it says"));
        };
        let is_end = next + 1 == lines.len();
        let (from_old, from_new) = match line.first() {
            Some(b'-') => (1, 0),
            Some(b'+') => (0, 1),
            Some(b' ') => (1, 1),
            None if !is_end => (1, 1),
            Some(b'\r') if line.len() == 1 => (1, 1),
            Some(b'\\') => (0, 0),
            _ => return Err(wrong("the hunk is shorter than it says")),
        };
        if from_old > old || from_new > new {
            return Err(wrong("the hunk is longer than it says"));
        }
        (old, new) = (old - from_old, new - from_new);
        next += 1;
    }
    if lines.get(next).is_some_and(|line| line.starts_with(b"\\")) {
        next += 1;
    }
    let goes_on = |line: &&[u8]| {
        let is_names = line.starts_with(b"--- ")
            && lines.get(next + 1).is_some_and(|after| after.starts_with(b"+++ "));
        let is_signature = *line == b"-- " || *line == b"-- \r";
        matches!(line.first(), Some(b'-' | b'+' | b' ')) && !is_names && !is_signature
    };
    if lines.get(next).is_some_and(goes_on) {
        return Err(wrong("the hunk is longer than it says"));
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "diff --git a/x b/x\nindex 1..2 100644\n--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n";

    #[test]
    fn a_whole_diff_is_counted() {
        let two = format!("Subject: x\n\n{FILE}{}-- \n2.40\n", FILE.replace("/x", "/y"));
        let part = Part { hunks: 1, removes: false, changes: true };
        assert_eq!(parts(two.as_bytes()), Ok(vec![part, part]));
    }

    #[test]
    fn nothing_is_passed_over() {
        for (from, to) in [
            ("+c\n", "+c\n+d\n"),
            ("+c\n", ""),
            ("+++ b/x\n", "+++ b/x\n\n"),
            ("index", "\nindex"),
            ("@@ -1,2 +1,2 @@", "@@ -1,2"),
            ("+c\n", "+c\nstray\n@@ -9 +9 @@\n-a\n+b\n"),
            ("+c\n", "+c\n--- a/z\n+++ b/z\n@@ -1 +1 @@\n-a\n+b\n"),
            ("--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n", ""),
        ] {
            let broken = FILE.replacen(from, to, 1);
            assert!(parts(broken.as_bytes()).is_err(), "{broken}");
        }
    }
}
