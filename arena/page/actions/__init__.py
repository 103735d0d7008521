"""What a visitor does on the page, as changes of its elements; decides no right itself."""
