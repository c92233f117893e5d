package verify

// VP8Update returns the probabilities of updates in the order of the bits.
func VP8Update() (all []uint8) {
	for i := range vp8Update {
		for j := range vp8Update[i] {
			for k := range vp8Update[i][j] {
				all = append(all, vp8Update[i][j][k][:]...)
			}
		}
	}
	return all
}
