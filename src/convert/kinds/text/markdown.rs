//! Markdown to HTML that is safe to show.
//!
//! Promises: the only tags are those that markdown itself makes, the only addresses are `http`, `https` and `mailto`
//! ones in links, and nothing is loaded by looking at it: an image becomes a link. HTML in a text is shown as the text
//! that it is, but for a line break. Tables and fenced code as in TensorBoard; no strikethrough, which would take `~5 to
//! ~7` for one. A text whose rendering would take long or grow out of proportion is shown as it was written.

use std::fmt;

use pulldown_cmark::{CodeBlockKind, CowStr, Event, LinkType, Options, Parser, Tag, TagEnd};

/// How a text was written into the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rendered {
    /// As markdown.
    Markdown,
    /// Character by character.
    AsWritten,
}

/// Larger texts are logs or data, not documents.
const LARGEST: usize = 256 << 10;

/// No page may be larger than its text by more than this factor. Escaping alone can make it six times as large.
const GROWTH: usize = 16;

/// Quotes and lists that begin within one line. The parser's time grows with the depth of them times the lines.
const DEEPEST: usize = 32;

/// Appends the HTML of a text.
pub(super) fn render(source: &str, out: &mut String) -> Rendered {
    let before = out.len();
    if source.len() <= LARGEST && !source.lines().any(nests_deeply) {
        let events = Safe { events: Parser::new_ext(source, Options::ENABLE_TABLES), links: Vec::new(), next: None };
        let room = source.len() * GROWTH + 1024;
        if pulldown_cmark::html::write_html_fmt(Bounded { out, room }, events).is_ok() {
            return Rendered::Markdown;
        }
        out.truncate(before);
    }
    out.push_str("<pre>\n");
    escape(source, out);
    out.push_str("</pre>\n");
    Rendered::AsWritten
}

/// Appends a text so that it stays itself between tags.
pub(super) fn escape(text: &str, out: &mut String) {
    for char in text.chars() {
        match char {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            // Left alone it would be read as a line feed.
            '\r' => out.push_str("&#13;"),
            _ => out.push(char),
        }
    }
}

/// Whether a line opens many quotes and lists within each other.
fn nests_deeply(line: &str) -> bool {
    let bytes = line.as_bytes();
    let ends_marker = |at: usize| matches!(bytes.get(at), None | Some(b' ' | b'\t'));
    let (mut at, mut depth) = (0, 0);
    while depth <= DEEPEST {
        match bytes.get(at) {
            Some(b' ' | b'\t') => at += 1,
            Some(b'>') => (at, depth) = (at + 1, depth + 1),
            Some(b'-' | b'+' | b'*') if ends_marker(at + 1) => (at, depth) = (at + 1, depth + 1),
            Some(b'0'..=b'9') => {
                let digits = bytes.iter().skip(at).take_while(|byte| byte.is_ascii_digit()).count();
                at += digits;
                if !matches!(bytes.get(at), Some(b'.' | b')')) || !ends_marker(at + 1) {
                    return false;
                }
                (at, depth) = (at + 1, depth + 1);
            }
            _ => return false,
        }
    }
    true
}

/// What is let through of the events of a parser.
struct Safe<'a, I> {
    events: I,
    /// Whether each open link or image was let through as a link.
    links: Vec<bool>,
    next: Option<Event<'a>>,
}

impl<'a, I: Iterator<Item = Event<'a>>> Safe<'a, I> {
    /// The event that opens a link, if it may be one here.
    fn link(&mut self, link_type: LinkType, dest_url: CowStr<'a>, title: CowStr<'a>) -> Option<Event<'a>> {
        // A link within a link is none.
        let open = is_allowed(link_type, &dest_url) && !self.links.contains(&true);
        self.links.push(open);
        open.then(|| Event::Start(Tag::Link { link_type, dest_url, title, id: "".into() }))
    }
}

impl<'a, I: Iterator<Item = Event<'a>>> Iterator for Safe<'a, I> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        if let Some(next) = self.next.take() {
            return Some(next);
        }
        loop {
            return Some(match self.events.next()? {
                Event::InlineHtml(html) if is_break(&html) => Event::HardBreak,
                Event::Html(html) | Event::InlineHtml(html) => Event::Text(html),
                Event::Start(Tag::HtmlBlock) => Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced("".into()))),
                Event::End(TagEnd::HtmlBlock) => Event::End(TagEnd::CodeBlock),
                Event::Start(Tag::Link { link_type, dest_url, title, .. }) => {
                    match self.link(link_type, dest_url, title) {
                        Some(link) => link,
                        None => continue,
                    }
                }
                Event::Start(Tag::Image { link_type, dest_url, title, .. }) => {
                    let says = Event::Text("image: ".into());
                    match self.link(link_type, dest_url, title) {
                        Some(link) => {
                            self.next = Some(says);
                            link
                        }
                        None => says,
                    }
                }
                Event::End(TagEnd::Link | TagEnd::Image) => match self.links.pop() {
                    Some(true) => Event::End(TagEnd::Link),
                    _ => continue,
                },
                other => other,
            });
        }
    }
}

/// Whether a link leads to where links may lead.
fn is_allowed(link_type: LinkType, url: &str) -> bool {
    // Of an address in angle brackets, `mailto:` is added by whoever writes it.
    let schemes = ["http://", "https://", "mailto:"];
    let starts = |scheme: &&str| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    link_type == LinkType::Email || schemes.iter().any(starts)
}

/// Whether this is the one tag that is let through.
fn is_break(html: &str) -> bool {
    let name = html.strip_prefix('<').and_then(|html| html.strip_suffix('>')).unwrap_or_default();
    name.strip_suffix('/').unwrap_or(name).trim_end().eq_ignore_ascii_case("br")
}

/// A text that may grow only so far.
struct Bounded<'a> {
    out: &'a mut String,
    room: usize,
}

impl fmt::Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.room = self.room.checked_sub(text.len()).ok_or(fmt::Error)?;
        self.out.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn html(source: &str) -> String {
        let mut out = String::new();
        let _ = render(source, &mut out);
        out
    }

    fn check(source: &str, expected: &str) {
        assert_eq!(html(source).trim_end(), expected, "{source}");
    }

    #[test]
    fn markdown_is_rendered() {
        check("step *0*", "<p>step <em>0</em></p>");
        check(
            "| a | b |\n|---|--:|\n| 1 | `2` |",
            concat!(
                "<table><thead><tr><th>a</th><th style=\"text-align: right\">b</th></tr></thead><tbody>\n",
                "<tr><td>1</td><td style=\"text-align: right\"><code>2</code></td></tr>\n</tbody></table>",
            ),
        );
        check("```py\na < b\n```", "<pre><code class=\"language-py\">a &lt; b\n</code></pre>");
        check("a  \nb<br>c<BR />d", "<p>a<br />\nb<br />\nc<br />\nd</p>");
        check("from ~5 to ~7, ~~all~~", "<p>from ~5 to ~7, ~~all~~</p>");
    }

    #[test]
    fn html_is_shown_as_text() {
        check("a <b onclick=x>b</b>", "<p>a &lt;b onclick=x&gt;b&lt;/b&gt;</p>");
        let script = "<pre><code>&lt;script&gt;alert(1)&lt;/script&gt;\n</code></pre>";
        check("<script>alert(1)</script>\n", script);
        check("<br onload=x>", "<pre><code>&lt;br onload=x&gt;</code></pre>");
        check("&lt;script&gt;", "<p>&lt;script&gt;</p>");
        check("`<i>`", "<p><code>&lt;i&gt;</code></p>");
    }

    #[test]
    fn links_lead_to_few_places_and_images_are_links() {
        check("[a](https://x.y/?b=1&c \"t\\\"\")", "<p><a href=\"https://x.y/?b=1&amp;c\" title=\"t&quot;\">a</a></p>");
        check("[a](HTTPS://x.y \"t\")", "<p><a href=\"HTTPS://x.y\" title=\"t\">a</a></p>");
        check(
            "<mailto:a@b.c> <a@b.c>",
            "<p><a href=\"mailto:a@b.c\">mailto:a@b.c</a> <a href=\"mailto:a@b.c\">a@b.c</a></p>",
        );
        for url in
            ["javascript:alert(1)", "JaVaScRiPt&colon;x", "data:text/html,x", "//x.y", "/a", "#a", "\u{1}http://x"]
        {
            check(&format!("[*a*](<{url}>)"), "<p><em>a</em></p>");
            check(&format!("![a](<{url}>)"), "<p>image: a</p>");
        }
        check("![*a*](https://x.y)", "<p><a href=\"https://x.y\">image: <em>a</em></a></p>");
        check("[![a](http://x) b](http://y)", "<p><a href=\"http://y\">image: a b</a></p>");
    }

    #[test]
    fn what_would_take_long_is_shown_as_it_was_written() {
        let plain = |source: &str| assert_eq!(render(source, &mut String::new()), Rendered::AsWritten);
        plain(&"x".repeat(LARGEST + 1));
        plain(&">".repeat(DEEPEST + 1));
        plain(&"- ".repeat(DEEPEST + 1));
        plain(&"1. ".repeat(DEEPEST + 1));
        // Each row of a table gets as many cells as its head.
        plain(&format!("{}|\n{}|\n{}", "|a".repeat(300), "|-".repeat(300), "a\n".repeat(300)));
        let mut out = "before".to_owned();
        let _ = render(&format!("{}<&\r\n", ">".repeat(50)), &mut out);
        assert_eq!(out, format!("before<pre>\n{}&lt;&amp;&#13;\n</pre>\n", "&gt;".repeat(50)));
        for shallow in ["> - 1. a", "---------------------------------------", "* * *", "1.5 2.5", "-1 -2"] {
            assert_eq!(render(shallow, &mut String::new()), Rendered::Markdown, "{shallow}");
        }
    }

    /// Every tag of a text, checked against the few that there may be.
    fn check_tags(html: &str) -> Result<(), String> {
        const NAMES: &[&str] = &[
            "p",
            "em",
            "strong",
            "code",
            "pre",
            "h1",
            "h2",
            "h3",
            "h4",
            "h5",
            "h6",
            "ul",
            "ol",
            "li",
            "blockquote",
            "hr",
            "br",
            "a",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
        ];
        for tag in html.split('<').skip(1) {
            let (tag, _) = tag.split_once('>').ok_or("an open tag")?;
            let tag = tag.strip_prefix('/').or(tag.strip_suffix(" /")).unwrap_or(tag);
            let (name, mut rest) = tag.split_once(' ').unwrap_or((tag, ""));
            if !NAMES.contains(&name) {
                return Err(format!("tag {tag:?}"));
            }
            while !rest.is_empty() {
                let (attribute, value) = rest.split_once("=\"").ok_or(format!("attribute in {tag:?}"))?;
                let (value, after) = value.split_once('"').ok_or("an open attribute")?;
                let good = match attribute {
                    "href" => is_allowed(LinkType::Inline, value),
                    "title" => name == "a",
                    "class" => value.starts_with("language-"),
                    "style" => value.starts_with("text-align: "),
                    "start" => value.parse::<u64>().is_ok(),
                    _ => false,
                };
                if !good {
                    return Err(format!("attribute {attribute:?} of {tag:?}"));
                }
                rest = after.trim_start();
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn nothing_but_markdown_comes_out(parts in proptest::collection::vec(proptest::sample::select(vec![
            "<script>", "</script>", "<img src=x onerror=y>", "<!--", "-->", "<a href='", "javascript:", "[", "](", ")",
            "![", "<", ">", "\"", "'", "`", "```", "\n", "\n\n", "    ", "|", "|-|\n", "&lt;", "&quot;", "&#x22;", "*",
            "_", "# ", "- ", "1. ", "> ", "http://a", "https://", "mailto:", "a@b.c", "\\", "\0", "\r", "\u{ad}", "x", " ",
            "[a]: ", "<![CDATA[", "]]>", "<?", "<svg/onload=z>", "{#id .c}", "</pre>", "data:",
        ]), 0..40)) {
            let source = parts.concat();
            let html = html(&source);
            let checked = check_tags(&html);
            prop_assert!(checked.is_ok(), "{:?} from {:?}: {:?}", html, source, checked);
        }

        #[test]
        fn any_text_is_survived(source in "\\PC{0,200}") {
            prop_assert!(check_tags(&html(&source)).is_ok());
        }
    }
}
