"""The model's route configurations in Envoy's JSON, for what the routing tests generate."""

from collections.abc import Sequence
from typing import Any

from meshlib.model.headers import HeaderMutations
from meshlib.model.matchers import (
    FractionalPercent,
    HeaderMatcher,
    Int64Range,
    PathMatcher,
    Present,
    QueryParameterMatcher,
    RegexRewrite,
    RouteMatch,
    StringMatcher,
)
from meshlib.model.route import (
    ClusterHeader,
    DirectResponseAction,
    HashPolicy,
    HostRewrite,
    RedirectAction,
    Route,
    RouteAction,
    RouteConfiguration,
    VirtualHost,
    WeightedCluster,
    WeightedClusters,
)

Json = dict[str, Any]

_REDIRECT_CODES = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}
_DENOMINATORS = {100: "HUNDRED", 10_000: "TEN_THOUSAND", 1_000_000: "MILLION"}


def route_configuration(config: RouteConfiguration) -> Json:
    return {
        "name": config.name,
        "virtual_hosts": [virtual_host(host) for host in config.virtual_hosts],
        **_mutations(config.request_headers, config.response_headers),
        "most_specific_header_mutations_wins": config.most_specific_header_mutations_wins,
        "ignore_port_in_host_matching": config.ignore_port_in_host_matching,
    }


def virtual_host(host: VirtualHost) -> Json:
    return {
        "name": host.name,
        "domains": list(host.domains),
        "routes": [route(entry) for entry in host.routes],
        "require_tls": host.require_tls,
        **_mutations(host.request_headers, host.response_headers),
    }


def route(entry: Route) -> Json:
    return {
        "name": entry.name,
        "match": _match(entry.match),
        **_action(entry.action),
        **_mutations(entry.request_headers, entry.response_headers),
    }


def _match(match: RouteMatch) -> Json:
    return {
        **_path(match.path),
        "headers": [_header(header) for header in match.headers],
        "query_parameters": [_query_parameter(parameter) for parameter in match.query_parameters],
        **({"grpc": {}} if match.grpc else {}),
        **({"runtime_fraction": _fraction(match.runtime_fraction)} if match.runtime_fraction else {}),
    }


def _path(path: PathMatcher) -> Json:
    value: Any = {"regex": path.value} if path.kind == "safe_regex" else path.value
    return {path.kind: value, "case_sensitive": path.case_sensitive}


def _fraction(percent: FractionalPercent) -> Json:
    return {"default_value": {"numerator": percent.numerator, "denominator": _DENOMINATORS[percent.denominator]}}


def _header(header: HeaderMatcher) -> Json:
    match header.match:
        case Present(present=present):
            test: Json = {"present_match": present}
        case Int64Range(start=start, end=end):
            test = {"range_match": {"start": str(start), "end": str(end)}}
        case matcher:
            test = {"string_match": _string(matcher)}
    flags = {"invert_match": header.invert, "treat_missing_header_as_empty": header.treat_missing_as_empty}
    return {"name": header.name, **test, **flags}


def _string(matcher: StringMatcher) -> Json:
    value: Any = {"regex": matcher.value} if matcher.kind == "safe_regex" else matcher.value
    return {matcher.kind: value, "ignore_case": matcher.ignore_case}


def _query_parameter(parameter: QueryParameterMatcher) -> Json:
    if isinstance(parameter.match, Present):
        return {"name": parameter.name, "present_match": parameter.match.present}
    return {"name": parameter.name, "string_match": _string(parameter.match)}


def _action(action: object) -> Json:
    match action:
        case DirectResponseAction(status=status, body=body):
            return {"direct_response": {"status": status, "body": {"inline_string": body.decode()}}}
        case RedirectAction():
            return {"redirect": _redirect(action)}
        case RouteAction():
            return {"route": _route_action(action)}
        case _:
            raise TypeError(f"not rendered: {action!r}")


def _redirect(action: RedirectAction) -> Json:
    return _set_only(
        response_code=_REDIRECT_CODES[action.response_code],
        https_redirect=action.https_redirect,
        scheme_redirect=action.scheme_redirect,
        host_redirect=action.host_redirect,
        port_redirect=action.port_redirect,
        path_redirect=action.path_redirect,
        prefix_rewrite=action.prefix_rewrite,
        regex_rewrite=_regex_rewrite(action.regex_rewrite),
        strip_query=action.strip_query,
    )


def _route_action(action: RouteAction) -> Json:
    return {
        **_cluster(action.cluster),
        "timeout": f"{action.timeout or 0}s",
        "append_x_forwarded_host": action.append_x_forwarded_host,
        **_set_only(
            prefix_rewrite=action.prefix_rewrite,
            regex_rewrite=_regex_rewrite(action.regex_rewrite),
            hash_policy=[_hash_policy(policy) for policy in action.hash_policies],
        ),
        **_host_rewrite(action.host_rewrite),
    }


def _cluster(cluster: str | WeightedClusters | ClusterHeader) -> Json:
    match cluster:
        case WeightedClusters(clusters=shares):
            return {"weighted_clusters": {"clusters": [_share(share) for share in shares]}}
        case ClusterHeader(name=name):
            return {"cluster_header": name}
        case name:
            return {"cluster": name}


def _share(share: WeightedCluster) -> Json:
    return {
        "name": share.name,
        "weight": share.weight,
        **_mutations(share.request_headers, share.response_headers),
        **_set_only(host_rewrite_literal=share.host_rewrite_literal),
    }


def _host_rewrite(rewrite: HostRewrite | None) -> Json:
    if rewrite is None:
        return {}
    match rewrite.kind:
        case "literal":
            return {"host_rewrite_literal": rewrite.value}
        case "header":
            return {"host_rewrite_header": rewrite.value}
        case "auto":
            return {"auto_host_rewrite": True}
        case "path_regex":
            return {"host_rewrite_path_regex": _regex_rewrite(rewrite.regex)}


def _hash_policy(policy: HashPolicy) -> Json:
    match policy.kind:
        case "header":
            rewrite = _set_only(regex_rewrite=_regex_rewrite(policy.regex_rewrite))
            rule: Json = {"header": {"header_name": policy.name, **rewrite}}
        case "cookie":
            ttl = {} if policy.ttl is None else {"ttl": f"{policy.ttl}s"}
            rule = {"cookie": {"name": policy.name, "path": policy.path, **ttl}}
        case "query_parameter":
            rule = {"query_parameter": {"name": policy.name}}
        case "source_ip":
            rule = {"connection_properties": {"source_ip": True}}
        case "filter_state":
            rule = {"filter_state": {"key": policy.name}}
    return {**rule, "terminal": policy.terminal}


def _regex_rewrite(rewrite: RegexRewrite | None) -> Json | None:
    return rewrite and {"pattern": {"regex": rewrite.pattern}, "substitution": rewrite.substitution}


def _mutations(request: HeaderMutations, response: HeaderMutations) -> Json:
    return _set_only(
        request_headers_to_add=_additions(request),
        request_headers_to_remove=list(request.remove),
        response_headers_to_add=_additions(response),
        response_headers_to_remove=list(response.remove),
    )


def _additions(mutations: HeaderMutations) -> Sequence[Json]:
    return [
        {
            "header": {"key": option.name, "value": option.value},
            "append_action": option.append_action,
            "keep_empty_value": option.keep_empty_value,
        }
        for option in mutations.add
    ]


def _set_only(**fields: Any) -> Json:
    """The fields that say something: in a oneof even an empty value would be a choice."""
    return {name: value for name, value in fields.items() if value not in (None, "", False, [])}
