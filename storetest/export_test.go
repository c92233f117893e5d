package storetest

// Names returns the subtests of TestFs. List has subtests of its own.
func Names() (filesystem, store, files []string) {
	return names("filesystem", probes), names("store", storeTests), names("files", fileTests)
}

func names[T any](group string, tests []test[T]) (names []string) {
	for _, test := range tests {
		names = append(names, group+"/"+test.name)
	}
	return names
}
