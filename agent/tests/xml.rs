//! Whatever a configuration looks like, an edit changes what it says it changes and not one byte more.

use agent::xml::{edit, values};
use proptest::prelude::*;
use proto::step::{XmlChange, XmlEdit};

/// A document in pieces: everything that stands between the tags of interest is arbitrary.
fn documents() -> impl Strategy<Value = (String, Vec<Option<String>>)> {
    let space = "[ \n\t]{0,3}";
    let filler = prop_oneof![
        Just(String::new()),
        "[a-z \n]{0,6}",
        Just("<!-- mta autoStart=\"no\" <mta> -->".to_owned()),
        Just("<![CDATA[<mta autoStart='x'/>]]>".to_owned()),
        Just("<?pi <mta?>".to_owned()),
        Just("<other autoStart=\"kept\"><mta autoStart='deeper > \" kept'/></other>".to_owned()),
    ];
    let tag =
        (space, space, space, "[a-z0-9 '>]{0,5}", any::<bool>(), any::<bool>()).prop_map(|(a, b, c, value, present, empty)| {
            let attribute = if present { format!("{a} autoStart{b}={c}\"{value}\"") } else { String::new() };
            let end = if empty { format!("{a}/>") } else { format!("{b}></mta>") };
            (format!("<mta{c} first='1'{attribute}{a} last=\">\"{end}"), present.then_some(value))
        });
    proptest::collection::vec((filler, tag), 0..4).prop_map(|pieces| {
        let mut text = "<?xml version=\"1.0\"?>\n<!DOCTYPE serverconf>\n<serverconf>".to_owned();
        let mut expected = Vec::new();
        for (filler, (tag, value)) in pieces {
            text.push_str(&filler);
            text.push_str(&tag);
            expected.push(value);
        }
        text.push_str("</serverconf>\n");
        (text, expected)
    })
}

fn change(change: XmlChange) -> Vec<XmlEdit> {
    vec![XmlEdit { element: "serverconf/mta".to_owned(), attribute: "autoStart".to_owned(), change }]
}

fn no_other(_: &str) -> Result<Vec<u8>, String> {
    Err("no other file".to_owned())
}

fn read(bytes: &[u8], attribute: &str) -> Vec<Option<String>> {
    values(bytes, "serverconf/mta", attribute).unwrap()
}

proptest! {
    #[test]
    fn values_are_found((text, expected) in documents()) {
        prop_assert_eq!(read(text.as_bytes(), "autoStart"), expected);
    }

    #[test]
    fn renaming_there_and_back_keeps_every_byte((text, expected) in documents()) {
        let there = edit(text.as_bytes(), &change(XmlChange::Rename("_autoStart".to_owned())), &mut no_other).unwrap();
        prop_assert_eq!(read(&there, "_autoStart"), expected.clone());
        prop_assert_eq!(read(&there, "autoStart"), vec![None; expected.len()]);
        let back = vec![XmlEdit { attribute: "_autoStart".to_owned(), ..change(XmlChange::Rename("autoStart".to_owned())).remove(0) }];
        prop_assert_eq!(edit(&there, &back, &mut no_other).unwrap(), text.into_bytes());
    }

    #[test]
    fn setting_changes_the_value_alone((text, expected) in documents(), value in "[ -~é\n\t]{0,8}") {
        prop_assume!(!expected.is_empty());
        let edited = edit(text.as_bytes(), &change(XmlChange::Set(value.clone())), &mut no_other).unwrap();
        prop_assert_eq!(read(&edited, "autoStart"), vec![Some(value); expected.len()]);
        // Without the attribute both are the same text.
        prop_assert_eq!(without(&edited), without(text.as_bytes()));
        prop_assert_eq!(read(&edited, "last"), vec![Some(">".to_owned()); expected.len()]);
    }

    #[test]
    fn single_byte_encodings_are_kept((text, _) in documents(), byte in 0x80u8..) {
        let mut bytes = text.into_bytes();
        let at = bytes.windows(12).position(|window| window == b"<serverconf>").unwrap() + 12;
        bytes.splice(at..at, [b'<', b'!', b'-', b'-', byte, b'-', b'-', b'>']);
        let there = edit(&bytes, &change(XmlChange::Rename("x".to_owned())), &mut no_other).unwrap();
        let back = vec![XmlEdit { attribute: "x".to_owned(), ..change(XmlChange::Rename("autoStart".to_owned())).remove(0) }];
        prop_assert_eq!(edit(&there, &back, &mut no_other).unwrap(), bytes);
    }

    #[test]
    fn anything_else_is_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[<>/= a-c'\"!?\\-\\[\\]&;]{0,80}") {
        for input in [bytes.as_slice(), text.as_bytes()] {
            let _ = values(input, "a/*", "b");
            let _ = edit(input, &change(XmlChange::Set("x".to_owned())), &mut no_other);
            let added = [XmlEdit { element: "a/b".to_owned(), ..change(XmlChange::Ensure("x".to_owned())).remove(0) }];
            if let Ok(edited) = edit(input, &added, &mut no_other) {
                prop_assert!(values(&edited, "a/b", "autoStart").unwrap().iter().all(|value| value.as_deref() == Some("x")));
            }
        }
    }
}

/// The text without `autoStart` attributes of the tags of interest, and without the white space that precedes them. Written
/// without the code under test.
fn without(bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find(" first='1'") {
        let (before, after) = rest.split_at(at + " first='1'".len());
        out.push_str(before);
        let trimmed = after.trim_start();
        rest = match trimmed.strip_prefix("autoStart") {
            Some(value) => {
                let open = value.find('"').unwrap();
                let close = open + 1 + value[open + 1..].find('"').unwrap();
                &value[close + 1..]
            }
            None => after,
        };
        // An attribute that was missing is added at the end of the tag.
        if let Some((tag, behind)) = rest.split_once(" last=\">\"") {
            let added = behind.strip_prefix(" autoStart=\"").map(|value| &value[value.find('"').unwrap() + 1..]);
            out.push_str(tag.trim());
            out.push_str(" last");
            rest = added.unwrap_or(behind);
        }
    }
    out.push_str(rest);
    out
}

#[test]
fn a_byte_order_mark_stays() {
    let bytes = b"\xef\xbb\xbf<serverconf><mta autoStart='a'/></serverconf>";
    let edited = edit(bytes, &change(XmlChange::Set("b".to_owned())), &mut no_other).unwrap();
    assert_eq!(edited, b"\xef\xbb\xbf<serverconf><mta autoStart=\"b\"/></serverconf>");
    assert!(values(b"\xff\xfe<\0a\0/\0>\0", "a", "b").unwrap_err().contains("UTF-8"));
}

#[test]
fn mistakes_are_named() {
    let text = b"<serverconf><mta autoStart='a' other='b'/></serverconf>";
    let wrong = |c| edit(text, &change(c), &mut no_other).unwrap_err();
    assert!(wrong(XmlChange::Rename("other".to_owned())).contains("both autoStart and other"));
    assert!(wrong(XmlChange::Rename("a b".to_owned())).contains("not an XML name"));
    assert!(edit(b"<a><b></a>", &change(XmlChange::Set(String::new())), &mut no_other).unwrap_err().contains("not well-formed"));
    assert!(values(b"<a><b>", "a", "b").unwrap_err().contains("ends inside"));
}

/// A name that was changed for a while is changed back where it was changed, and nowhere else.
#[test]
fn a_name_goes_back_where_it_was() {
    let before = b"<serverconf><mta autoStart=\"true\"/><mta _autoStart='true' x='1'/><mta/></serverconf>";
    let held = edit(before, &change(XmlChange::Rename("_autoStart".to_owned())), &mut no_other).unwrap();
    assert_eq!(read(&held, "_autoStart"), [Some("true".to_owned()), Some("true".to_owned()), None]);
    let back = |bytes: &[u8], before: &[u8]| {
        let change = change(XmlChange::NameAs { name: "autoStart".to_owned(), file: "before.xml".to_owned() }).remove(0);
        let edits = [XmlEdit { attribute: "_autoStart".to_owned(), ..change }];
        edit(bytes, &edits, &mut |file| {
            assert_eq!(file, "before.xml");
            Ok(before.to_vec())
        })
    };
    let free = back(&held, before).unwrap();
    assert_eq!(free, before, "what the site itself had set aside stays aside");
    assert_eq!(back(&free, before).unwrap(), before, "twice is once");
    let both = b"<serverconf><mta autoStart='a' _autoStart='b'/></serverconf>";
    assert!(back(both, both).unwrap_err().contains("has both _autoStart and autoStart"));
    let fewer = b"<serverconf/>";
    assert!(back(fewer, before).unwrap_err().contains("lacks an element serverconf/mta that before.xml has"));
}

/// What an edit makes of a file that lacks `<trackinglogd>`; the probe of the step holds afterwards, and a second edit changes nothing.
fn ensured(before: &str) -> String {
    let edits = [XmlEdit {
        element: "serverconf/trackinglogd".to_owned(),
        attribute: "autoStart".to_owned(),
        change: XmlChange::Ensure("true".to_owned()),
    }];
    let after = edit(before.as_bytes(), &edits, &mut no_other).unwrap();
    assert_eq!(values(&after, "serverconf/trackinglogd", "autoStart").unwrap(), [Some("true".to_owned())]);
    assert_eq!(edit(&after, &edits, &mut no_other).unwrap(), after, "twice is once");
    String::from_utf8(after).unwrap()
}

const TRACKING: &str = "<trackinglogd autoStart=\"true\"/>";

#[test]
fn an_element_that_is_missing_is_added_as_the_last_one_of_its_parent() {
    // Before, behind which text the element stands, and what it stands between.
    for (before, new) in [
        ("<?xml version='1.0'?>\n<serverconf>\n    <mta a='1'/>\n  <!-- <trackinglogd/> -->\n</serverconf>\n", "    T\n"),
        ("<serverconf>\r\n\t<mta>\r\n\t\t<x/>\r\n\t</mta>\r\n</serverconf>\r\n", "\tT\r\n"),
        ("<serverconf>\n</serverconf>", "  T\n"),
        ("<serverconf>\n  <mta/></serverconf>", "\n  T"),
        ("<serverconf><mta/></serverconf>", "T"),
        ("<serverconf ></serverconf >", "T"),
    ] {
        let at = before.rfind("</serverconf").unwrap();
        let expected = format!("{}{}{}", &before[..at], new.replace('T', TRACKING), &before[at..]);
        assert_eq!(ensured(before), expected);
    }
}

#[test]
fn a_parent_that_closes_itself_gets_an_end() {
    let new = format!("<serverconf a='>'>\n  {TRACKING}\n</serverconf>");
    assert_eq!(
        ensured("<!-- <serverconf> -->\n<serverconf a='>'/>\n<!-- end -->"),
        format!("<!-- <serverconf> -->\n{new}\n<!-- end -->")
    );
    let inline = format!("<?xml version='1.0'?><serverconf >{TRACKING}</serverconf>");
    assert_eq!(ensured("<?xml version='1.0'?><serverconf />"), inline);
}

#[test]
fn an_element_that_is_there_only_gets_its_value() {
    assert_eq!(
        ensured("<serverconf><trackinglogd autoStart='false' x='1'/></serverconf>"),
        "<serverconf><trackinglogd autoStart=\"true\" x='1'/></serverconf>"
    );
    assert_eq!(
        ensured("<serverconf>\n <trackinglogd>\n</trackinglogd></serverconf>"),
        "<serverconf>\n <trackinglogd autoStart=\"true\">\n</trackinglogd></serverconf>"
    );
}

#[test]
fn nothing_is_added_where_it_is_not_clear_where() {
    let wrong = |text: &str, element: &str| {
        let edits = [XmlEdit { element: element.to_owned(), ..change(XmlChange::Ensure("true".to_owned())).remove(0) }];
        edit(text.as_bytes(), &edits, &mut no_other).unwrap_err()
    };
    assert!(wrong("<other/>", "serverconf/mta").contains("it has 0 of serverconf, which has to be there once"));
    assert!(wrong("<a><b/><b/></a>", "a/b/c").contains("it has 2 of a/b"));
    assert!(wrong("<a/>", "b").contains("it would be the root"));
    assert!(wrong("<a/>", "a/*").contains("not an XML name"));
    // Plain `set` adds nothing.
    let set = edit(b"<serverconf/>", &change(XmlChange::Set("true".to_owned())), &mut no_other).unwrap_err();
    assert!(set.contains("has no element serverconf/mta"), "{set}");
}
