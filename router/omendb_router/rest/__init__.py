"""The REST face: routes, the bodies they take and give, and the OpenAPI document made of both."""
