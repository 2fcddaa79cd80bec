"""Operations on role assignments: giving and taking one, and listing all."""
