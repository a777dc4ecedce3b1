"""The demo's schemas, mappings and dictionary, as the files that `concord demo` puts into its folder."""
