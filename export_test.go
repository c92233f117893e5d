package imagestore

// DriverOf returns the driver below a Store.
func DriverOf(s *Store) Driver { return s.driver }
