package storetest

// Names returns the subtests of TestFs.
func Names() (filesystem, store []string) {
	for _, p := range probes {
		filesystem = append(filesystem, "filesystem/"+p.name)
	}
	for _, p := range promises {
		store = append(store, "store/"+p.name)
	}
	return filesystem, store
}
