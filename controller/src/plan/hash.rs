//! The plan's hash: what a saved plan is compared by.

use super::model::PlatformPlan;
use inventory::Fleet;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// SHA-256, lower-case hex, of the canonical JSON of the resolved inventory (which holds no secret, only where secrets are) and of all
/// steps.
pub(super) fn plan_hash(fleet: &Fleet, platforms: &[PlatformPlan]) -> Result<String, serde_json::Error> {
    digest(&serde_json::json!({ "inventory": serde_json::to_value(fleet)?, "platforms": serde_json::to_value(platforms)? }))
}

/// SHA-256, lower-case hex, of the canonical JSON of a value.
pub(crate) fn digest(value: &Value) -> Result<String, serde_json::Error> {
    let mut canonical = String::new();
    write_canonical(value, &mut canonical)?;
    Ok(Sha256::digest(canonical.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// JSON without white space and with the keys of objects in byte order, whatever order the map type keeps.
fn write_canonical(value: &Value, out: &mut String) -> Result<(), serde_json::Error> {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out)?;
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| key.as_bytes());
            out.push('{');
            for (index, (key, value)) in fields.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&serde_json::to_string(key)?);
                out.push(':');
                write_canonical(value, out)?;
            }
            out.push('}');
        }
        scalar => out.push_str(&serde_json::to_string(scalar)?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::write_canonical;

    #[test]
    fn keys_are_sorted_and_nothing_else_moves() {
        let value = serde_json::json!({"b": [2, 1, {"z": null, "a": "\u{e9}\n"}], "a": 1.5});
        let mut text = String::new();
        write_canonical(&value, &mut text).unwrap();
        assert_eq!(text, "{\"a\":1.5,\"b\":[2,1,{\"a\":\"\u{e9}\\n\",\"z\":null}]}");
    }
}
