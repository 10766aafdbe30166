//! What becomes of a list of members: pure, and without an opinion about values, which are the server's to check.

use chorus_coordinator::config::MemberConfig;
use chorus_proto::v1::MemberSettings;

use crate::failure::UsageError;

/// A change of a list of members.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Edit {
    /// At the end of the list.
    Add(Vec<MemberConfig>),
    Remove(Vec<String>),
    /// Other addresses; the weights stay.
    Move(Vec<MemberConfig>),
    Weigh(Vec<(String, f64)>),
}

impl Edit {
    /// The list after the change.
    ///
    /// # Errors
    /// A name that is no member's, or one that is.
    pub(super) fn apply(self, mut members: Vec<MemberSettings>) -> Result<Vec<MemberSettings>, UsageError> {
        match self {
            Self::Add(added) => {
                for member in added {
                    if members.iter().any(|known| known.name == member.name) {
                        let name = member.name;
                        return Err(UsageError(format!(
                            "{name:?} is a member already; see `chorus members move`"
                        )));
                    }
                    members.push(settings(&member));
                }
            }
            Self::Remove(names) => {
                for name in names {
                    let place = place(&members, &name)?;
                    members.remove(place);
                }
            }
            Self::Move(moved) => {
                for member in moved {
                    let place = place(&members, &member.name)?;
                    members[place].addresses = settings(&member).addresses;
                }
            }
            Self::Weigh(weights) => {
                for (name, weight) in weights {
                    let place = place(&members, &name)?;
                    members[place].weight = Some(weight);
                }
            }
        }
        Ok(members)
    }
}

fn settings(member: &MemberConfig) -> MemberSettings {
    MemberSettings {
        name: member.name.clone(),
        weight: Some(member.weight),
        addresses: member.address.as_slice().to_vec(),
    }
}

fn place(members: &[MemberSettings], name: &str) -> Result<usize, UsageError> {
    members.iter().position(|member| member.name == name).ok_or_else(|| {
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        UsageError(format!("{name:?} is no member; there are: {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(flag: &str) -> MemberConfig {
        flag.parse().unwrap()
    }

    fn two() -> Vec<MemberSettings> {
        ["alto@2=http://h:1", "bass=http://h:2"].map(|flag| settings(&member(flag))).to_vec()
    }

    fn shown(edited: Result<Vec<MemberSettings>, UsageError>) -> String {
        match edited {
            Err(error) => error.to_string(),
            Ok(members) => {
                let each = members.iter().map(|member| {
                    format!("{}@{}={}", member.name, member.weight.unwrap(), member.addresses.join(","))
                });
                each.collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[test]
    fn an_edit_changes_what_it_names_and_nothing_else() {
        for (edit, result) in [
            (
                Edit::Add(vec![member("cello@0.5=http://h:3,http://h:4")]),
                "alto@2=http://h:1 bass@1=http://h:2 cello@0.5=http://h:3,http://h:4",
            ),
            (Edit::Remove(vec!["alto".into()]), "bass@1=http://h:2"),
            (Edit::Move(vec![member("alto@9=dns://a:5")]), "alto@2=dns://a:5 bass@1=http://h:2"),
            (
                Edit::Weigh(vec![("bass".into(), 0.0), ("alto".into(), -1.0)]),
                "alto@-1=http://h:1 bass@0=http://h:2",
            ),
        ] {
            assert_eq!(shown(edit.apply(two())), result);
        }
    }

    #[test]
    fn a_name_must_be_a_member_s_or_must_not() {
        let unknown = "\"tuba\" is no member; there are: alto, bass";
        assert_eq!(shown(Edit::Remove(vec!["tuba".into()]).apply(two())), unknown);
        assert_eq!(shown(Edit::Weigh(vec![("tuba".into(), 1.0)]).apply(two())), unknown);
        assert_eq!(shown(Edit::Move(vec![member("tuba=http://h:1")]).apply(two())), unknown);
        let twice = Edit::Add(vec![member("bass=http://h:1")]).apply(two());
        assert_eq!(shown(twice), "\"bass\" is a member already; see `chorus members move`");
    }
}
